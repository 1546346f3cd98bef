"""The journal of a study: each trial is on the disk before work goes on, so that any run can be gone on with."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelkit.errors import UsageError
from modelkit.files import shown
from modelkit.jobs import journal
from modelkit.jobs.lock import FolderLock
from modelkit.nas.trials import Trial

_JOURNAL, _LOCK = "study.jsonl", "lock"


def folder_of(output: Path) -> Path:
    """The folder of the run that writes a model."""
    return output.with_name(f"{output.name.removesuffix('.onnx')}.nas")


def record_of(trial: Trial) -> dict[str, Any]:
    """A trial as plain values for JSON."""
    return {
        "number": trial.number,
        "genome": [int(place) for place in trial.genome],
        "key": trial.key,
        "document": dict(trial.document),
        "source": trial.source,
        "parameters": trial.parameters,
        "macs": trial.macs,
        "status": trial.status,
        "epochs": trial.epochs,
        "errors": {str(epochs): error for epochs, error in trial.errors.items()},
        "figures": trial.figures,
        "seconds": round(trial.seconds, 4),
        "ended": round(trial.ended, 4),
        "reason": trial.reason,
    }


def trial_of(record: Mapping[str, Any]) -> Trial:
    """A trial from what ``record_of`` made of it."""
    values = dict(record)
    values["genome"] = tuple(values["genome"])
    values["errors"] = {int(epochs): float(error) for epochs, error in values["errors"].items()}
    return Trial(**{name: values[name] for name in Trial.__dataclass_fields__ if name in values})


class Study:
    """The folder of a run; to be used in a ``with`` block.

    Args:
        folder: Where it is; made if it is not there.
        facts: What must be the same for an earlier run to be gone on with: the space, the data, the seed.
        resume: Whether to go on with what is there.

    Attributes:
        records: What an earlier run found, in the order in which it ended.

    Raises:
        UsageError: There is nothing to go on with, or it was a study of another space or of other data.
        ResourceError: The folder cannot be written.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, resume: bool) -> None:
        self.folder, self._facts, self._resume = folder, dict(facts), resume
        self.records: list[dict[str, Any]] = self._read() if resume else []

    def _read(self) -> list[dict[str, Any]]:
        found = journal.read(self.folder / _JOURNAL)
        if not found:
            raise UsageError(f"'{shown(self.folder)}' holds no study to go on with", "leave --resume out")
        check_facts(found[0].get("facts", {}), self._facts, f"the study in '{shown(self.folder)}'")
        return [record for record in found[1:] if isinstance(record.get("key"), str)]

    def __enter__(self) -> Study:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.folder / _LOCK, self.folder)
        self._lock.__enter__()
        try:
            if not self._resume:
                shutil.rmtree(self.folder / "trials", ignore_errors=True)
            self._journal = journal.Journal(self.folder / _JOURNAL, fresh=not self._resume)
            self._journal.__enter__()
            if not self._resume:
                self._journal.append({"facts": self._facts})
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its checkpoint and its model."""
        return self.folder / "trials" / f"{number:05d}"

    def keep(self, trial: Trial) -> None:
        """Note a trial that has ended, or come to a rung."""
        self._journal.append(_finite(record_of(trial)))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._journal.__exit__()
        self._lock.__exit__()

    def remove(self) -> None:
        """Remove all of it: the run is done. The journal first: what is half removed is no study to go on with."""
        with suppress(OSError):
            (self.folder / _JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Remove it where nothing was found that is worth going on with."""
        if not any((self.folder / "trials").glob("*/model.onnx")):
            with suppress(OSError):
                self.remove()


def check_facts(was: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Refuse to go on with another study.

    Raises:
        UsageError: Says what differs.
    """
    others = sorted(name for name, value in now.items() if was.get(name) != value)
    if "space" in others:
        raise UsageError(
            f"{what} belongs to another space: its hash is {was.get('space')}, that of this one {now['space']}",
            "give the space that it was begun with, or leave --resume out and choose another output or study",
        )
    if others:
        raise UsageError(
            f"{what} was another one: {', '.join(others)} changed since", "leave --resume out to begin anew"
        )


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities."""
    figures = {n: v for n, v in record["figures"].items() if not isinstance(v, float) or math.isfinite(v)}
    return {**record, "figures": figures}
