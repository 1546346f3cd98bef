"""What steps made, kept by what it was made from: found again by its key, and checked by hashes before it is used."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.errors import ResourceError
from modelkit.files import Staging, json_bytes, sha256
from modelkit.staging import keep

MODEL = "model.onnx"
"""What a step's artifact is called in its working folder; the name of external data stands in the model."""

_SCHEMA = "modelkit.cache/1"
_PARTS = {"": ".onnx", ".data": ".onnx.data"}  # ending of MODEL -> ending of the key


@dataclass(frozen=True)
class Entry:
    """What is known of a step that was done.

    Attributes:
        report: Its report, as plain values.
        seconds: How long it took when it was done.
    """

    report: dict[str, Any]
    seconds: float


class Cache:
    """A folder of artifacts by key: ``KEY.onnx``, ``KEY.onnx.data`` for large ones, and ``KEY.json``.

    Entries appear whole or not at all, and a damaged one is as good as none. Several runs may share a folder.

    Args:
        folder: Where it is; made when the first entry comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, key: str, into: Path) -> Entry | None:
        """Put the artifact of a key into a folder as ``MODEL``; None where there is no entry, or it is damaged.

        Args:
            key: See ``key_of``.
            into: An empty folder, on the same disk if it can be.
        """
        record = _read(self.folder / f"{key}.json", key)
        if record is None:
            return None
        targets = []
        for ending, digest in record["files"].items():
            source, target = self.folder / f"{key}{_PARTS[ending]}", into / f"{MODEL}{ending}"
            targets.append(target)
            # Hashed where nobody else writes: what another run does to the entry meanwhile does not matter.
            if not _take(source, target) or sha256(target) != digest:
                for each in targets:
                    each.unlink(missing_ok=True)
                return None
        return Entry(record["report"], record["seconds"])

    def store(self, key: str, made: Path, entry: Entry) -> None:
        """Keep what a step made.

        Args:
            key: See ``key_of``.
            made: The folder with ``MODEL`` in it.
            entry: What is known of it.

        Raises:
            ResourceError: The folder cannot be written.
        """
        endings = [ending for ending in _PARTS if (made / f"{MODEL}{ending}").exists()]
        files = {ending: sha256(made / f"{MODEL}{ending}") for ending in endings}
        record = {"schema": _SCHEMA, "key": key, "files": files, "seconds": entry.seconds, "report": entry.report}
        with Staging(self.folder) as stage:
            for ending in endings:
                keep(made / f"{MODEL}{ending}", stage.path(f"{key}{_PARTS[ending]}"))
            stage.path(f"{key}.json").write_bytes(json_bytes({**record, "sha256": _digest(record)}))
            stage.publish([*(f"{key}{_PARTS[ending]}" for ending in endings[::-1]), f"{key}.json"], force=True)


def key_of(facts: object) -> str:
    """The key of what depends on nothing but these plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def model_hash(path: Path, external: Sequence[Path]) -> str:
    """SHA-256 of a model: of its file, and of its external data where it has some.

    Raises:
        ResourceError: A file cannot be read.
    """
    hashes = [sha256(each) for each in (path, *external)]
    return hashes[0] if len(hashes) == 1 else key_of(hashes)


def external_of(path: Path) -> list[Path]:
    """The external data of a model that a step made; an empty list where it has none."""
    data = path.with_name(f"{path.name}.data")
    return [data] if data.exists() else []


def _take(source: Path, target: Path) -> bool:
    """Give a file another name; False where it is no plain file."""
    try:
        if not stat.S_ISREG(source.lstat().st_mode):
            return False
        keep(source, target)
    except OSError:
        return False
    return True


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """An entry's record; None where there is none, or it is not as it was written."""
    with suppress(OSError, ValueError, RecursionError, KeyError, TypeError, ResourceError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        record = json.loads(path.read_bytes())
        digest = record.pop("sha256")
        known = record["schema"] == _SCHEMA and record["key"] == key and record["files"].keys() <= _PARTS.keys()
        if known and "" in record["files"] and digest == _digest(record):
            found: dict[str, Any] = record
            return found
    return None


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json_bytes(record)).hexdigest()
