"""What a run keeps beside its artifact while it lasts, so that a run which was ended can be gone on with.

A folder ``NAME.automl`` holds a journal of the trials and, for each that went through all folds, its predictions out
of fold as npy. Neither can run code. The folder is removed when the run is done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.automl.search import Trial
from modelkit.errors import UsageError
from modelkit.files import shown
from modelkit.jobs import journal

_JOURNAL = "trials.jsonl"


def folder_of(output: Path) -> Path:
    """The folder of a run that writes an artifact."""
    return output.with_name(f"{output.name.removesuffix('.onnx')}.automl")


def key_of(family: str, params: Mapping[str, Any]) -> str:
    """A short name for hyper-parameters of a family."""
    text = json.dumps([family, sorted(params.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Past:
    """The folder of a run; to be used in a ``with`` block.

    Args:
        folder: Where it is; made if it is not there.
        facts: What must be the same for an earlier run to be gone on with: the data, the options that matter.
        resume: Whether to go on with what is there.

    Raises:
        UsageError: There is nothing to go on with, or the data or the options are others.
        ResourceError: The folder cannot be written.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, resume: bool) -> None:
        self.folder, self._facts, self._resume = folder, dict(facts), resume
        self.records: dict[str, dict[str, Any]] = {}
        if resume:
            self.records = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        found = journal.read(self.folder / _JOURNAL)
        if not found:
            raise UsageError(f"'{shown(self.folder)}' holds no run to go on with", "leave --resume out")
        was = found[0].get("facts", {})
        others = sorted(name for name, value in self._facts.items() if was.get(name) != value)
        if others:
            raise UsageError(
                f"the run in '{shown(self.folder)}' was another one: {', '.join(others)} changed since",
                "leave --resume out to begin anew",
            )
        records = {record["key"]: record for record in found[1:] if isinstance(record.get("key"), str)}
        return {k: r for k, r in records.items() if r["status"] != "done" or self.predictions(k).exists()}

    def __enter__(self) -> Past:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._resume:
            for path in self.folder.glob("oof-*.npy"):
                path.unlink()
        self._journal = journal.Journal(self.folder / _JOURNAL, fresh=not self._resume)
        self._journal.__enter__()
        if not self._resume:
            self._journal.append({"facts": self._facts})
        return self

    def predictions(self, key: str, *, fresh: bool = False) -> Path:
        """Where predictions out of fold are kept, of the folds of the search or of fresh ones."""
        return self.folder / f"oof-{key}{'-fresh' if fresh else ''}.npy"

    def keep(self, trial: Trial) -> None:
        """Note a trial that ended."""
        record = {
            "key": key_of(trial.family, trial.params),
            "family": trial.family,
            "params": dict(trial.params),
            "source": trial.source,
            "status": trial.status,
            "loss": trial.loss if np.isfinite(trial.loss) else None,
            "losses": trial.losses,
            "seconds": trial.seconds,
            "fit_seconds": trial.fit_seconds,
            "rounds": trial.rounds,
            "reason": trial.reason,
        }
        self._journal.append(record, sync=False)

    def recall(self, trial: Trial) -> bool:
        """Fill in what an earlier run found out about a trial; whether it did."""
        record = self.records.get(key_of(trial.family, trial.params))
        if record is None:
            return False
        for name in ("status", "losses", "seconds", "fit_seconds", "rounds", "reason"):
            setattr(trial, name, record[name])
        trial.loss = float("inf") if record["loss"] is None else record["loss"]
        return True

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._journal.__exit__()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif not any(self.folder.glob("oof-*.npy")):  # nothing was found that is worth going on with
            with suppress(OSError):
                (self.folder / _JOURNAL).unlink()
                self.folder.rmdir()
