"""What earlier runs into a folder did, from their journal: which models need not be done again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modelkit.batch.plan import Item
from modelkit.errors import ResourceError
from modelkit.files import sha256
from modelkit.report.summary import DONE, MISSED, Row, figures_of, subject_of
from modelkit.staging import mark_of


class Past:
    """The last that a journal says of each model.

    Args:
        records: The journal's lines.
        folder: The folder of results.
        key: What results depend on beside the model, for this run (see ``modelkit.batch.plan.key_of``).
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._last: dict[str, Mapping[str, Any]] = {}
        self._written: set[str] = set()
        for record in records:
            self._last[str(record.get("model"))] = record
            self._written.add(str(record.get("output")))

    def wrote(self, item: Item) -> bool:
        """Whether the files of an item are those of an earlier run, so that they may be replaced."""
        return relative(item.output, self._folder) in self._written

    def row(self, item: Item) -> Row | None:
        """The row of a model that is done, and unchanged like its results; else None."""
        record = self._last.get(item.name)
        if record is None or record.get("event") != "end" or not self._is_same(record, item):
            return None
        try:
            if record["row"]["status"] not in (DONE, MISSED) or sha256(item.path) != record["sha256"]:
                return None
            if not _unchanged(item.path.parent, record["external"]) or not _unchanged(self._folder, record["files"]):
                return None
            return Row(**{**record["row"], "resumed": True})
        except (KeyError, TypeError, ResourceError):
            return None

    def orphan(self, item: Item) -> Row | None:
        """The row of a model whose results are in place although a kill kept the journal from saying so; else None.

        The journal tells what was there before the model was begun, and results are put there all or none: what is
        different now is the result. It is taken from its report.
        """
        record = self._last.get(item.name)
        if record is None or record.get("event") != "start" or not self._is_same(record, item):
            return None
        if marks_of(item) == record.get("seen"):
            return None
        document = read_document(item)
        try:
            # Without its list of external data, a change of that could not be noticed later.
            if document is None or _subject(document) != (sha256(item.path), 0):
                return None
            status = str(document.get("status", DONE))
            output = relative(item.output, self._folder) if status == DONE else None
            exit_code = 0 if status == DONE else 1
            figures, page = figures_of(document), relative(page_of(item), self._folder)
            return Row(item.name, status, output, figures, exit_code=exit_code, resumed=True, page=page)
        except (KeyError, TypeError, IndexError, ResourceError):
            return None

    def _is_same(self, record: Mapping[str, Any], item: Item) -> bool:
        return record.get("key") == self._key and record.get("output") == relative(item.output, self._folder)


def page_of(item: Item) -> Path | None:
    """The page that was written for an item; None where there is none."""
    return next((path for path in item.outputs if path.suffix == ".html" and path.is_file()), None)


def relative(path: Path | None, folder: Path) -> str | None:
    """A path below a folder, with forward slashes."""
    return None if path is None else path.relative_to(folder).as_posix()


def marks_of(item: Item) -> dict[str, list[int]]:
    """What tells the files of an item from any that take their place."""
    found = {}
    for path in item.outputs:
        if os.path.lexists(path):
            found[path.name] = mark_of(path)
    return found


def read_document(item: Item) -> dict[str, Any] | None:
    """The JSON that was written for an item; None where there is none."""
    for path in item.outputs:
        if path.suffix == ".json":
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
            return found if isinstance(found, dict) else None
    return None


def _subject(document: Mapping[str, Any]) -> tuple[str, int]:
    """Hash and bytes of external data of the model that a document is about."""
    subject = subject_of(document)
    return subject["file"]["sha256"], subject.get("size", {}).get("external_bytes", 0)


def _unchanged(folder: Path, hashes: Mapping[str, str]) -> bool:
    return all((folder / name).is_file() and sha256(folder / name) == found for name, found in hashes.items())
