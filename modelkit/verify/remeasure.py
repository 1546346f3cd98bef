"""Measuring again what a report says: which samples, how good, how fast."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import TypeAdapter, ValidationError

from modelkit.algorithm.config import TransformConfig
from modelkit.data.open import open_dataset
from modelkit.data.roles import Roles, assign_roles
from modelkit.data.synthetic import synthetic_dataset
from modelkit.errors import DataError, ModelError, ResourceError, UsageError
from modelkit.files import shown
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.load import load
from modelkit.measure.evaluate import Evaluation, evaluate_sessions
from modelkit.measure.latency import compare_fresh
from modelkit.progress import Progress
from modelkit.report import rows, units
from modelkit.report.stored import StoredData, StoredReport, beside
from modelkit.report.verification import Verification
from modelkit.runtime import TensorSpec, class_count, input_specs, make_session, output_specs, ready_run
from modelkit.transform.commands import COMMANDS

if TYPE_CHECKING:
    import onnxruntime as ort

    from modelkit.data.dataset import Dataset

# How far a figure may be off: on the machine that measured it, and on another, where kernels round differently.
_SAME, _OTHER = 1e-6, 0.005
_SAME_DB, _OTHER_DB = 0.1, 3.0
# Numbers in all made-up samples; a report that asks for more is an attack on the memory.
_MOST_NUMBERS = 1 << 30


class Given(Protocol):
    """What is read of what a user says."""

    @property
    def data(self) -> Path | None: ...  # noqa: D102
    @property
    def test(self) -> Path | None: ...  # noqa: D102
    @property
    def tolerance(self) -> float: ...  # noqa: D102
    @property
    def latency(self) -> bool: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102


def options_of(stored: StoredReport) -> TransformConfig | str:
    """The options of a report, checked like those of any run; where they cannot be used, why."""
    command = COMMANDS.get(stored.command)
    if command is None:
        return f"figures were not measured again: '{shown(stored.command[:100])}' is no command that is known here"
    try:
        # As JSON, in which lists may be tuples and text may be an enum.
        found: TransformConfig = TypeAdapter(command.schema).validate_json(json.dumps(stored.config), strict=True)
    except (ValidationError, ValueError, RecursionError):
        return "figures were not measured again: the report's options are not those of this version of modelkit"
    return found


class Remeasure:
    """Measures again what a report says.

    Args:
        found: Where each figure is added.
        stored: The report.
        options: Its options.
        given: What the user says.
        progress: Told how far the work is.
    """

    def __init__(
        self, found: Verification, stored: StoredReport, options: TransformConfig, given: Given, progress: Progress
    ) -> None:
        self._found, self._stored, self._options = found, stored, options
        self._given, self._progress = given, progress
        versions = stored.machine.get("versions")
        old = versions.get("onnxruntime") if isinstance(versions, dict) else None
        machine = found.machine
        self._same = stored.machine.get("cpu") == machine["cpu"] and old == machine["versions"]["onnxruntime"]

    def run(self, folder: Path, original: Path | None, artifact: Path) -> None:
        """Measure.

        Args:
            folder: The report's folder.
            original: The original as an ONNX file; None where it is not there.
            artifact: The artifact.
        """
        paths = {"artifact": artifact} if original is None else {"original": original, "artifact": artifact}
        try:
            roles = self._roles(folder, next(iter(paths.values())))
            judged = None if roles is None else roles.test or roles.selection
            self._quality(paths, judged)
            self._latency(paths, None if roles is None else roles.selection)
        except ModelError as error:
            self._found.add("models run", "yes", "no", False, error.message)
        except (DataError, UsageError, ResourceError) as error:
            self._found.notes.append(f"not all was run: {error.message}")

    # --- samples ----------------------------------------------------------------------------------------------

    def _roles(self, folder: Path, reference: Path) -> Roles | None:
        """The samples of each role, compared with the report's; None where they are not there or are others."""
        session = self._session(reference)
        specs, classes = input_specs(session), class_count(output_specs(session))
        del session
        stored = self._stored.data
        working, apart = sources_of(self._stored)
        data = self._open(folder, working, self._given.data, "--data", specs, classes)
        test = self._open(folder, apart, self._given.test, "--test", specs, classes)
        if (working is not None and data is None) or (apart is not None and test is None):
            return None
        if any(each.synthetic for each in stored.values()):
            self._check_made_up(specs)
        made_up = synthetic_dataset(
            specs,
            count=self._options.synthetic.samples,
            seed=self._options.seed,
            vocabulary=input_vocabulary(load(reference).model),
            dims=dict(self._options.synthetic.dims),
        )
        training = COMMANDS[self._stored.command].training(self._options)
        roles = assign_roles(data, test, made_up, seed=self._options.seed, training=training)
        found, same = roles.describe(), True
        for role, entry in stored.items():
            now = found.get(role, {}).get("sha256")
            same &= self._found.add(
                f"{role} samples", entry.sha256[:16], str(now)[:16] if now else "none", now == entry.sha256
            )
        return roles if same else None

    def _open(
        self,
        folder: Path,
        stored: StoredData | None,
        named: Path | None,
        option: str,
        specs: Sequence[TensorSpec],
        classes: int | None,
    ) -> Dataset | None:
        if stored is None:
            return None
        path = named
        if path is None:
            path = beside(folder, stored.path or "", option) if stored.path else None
        if path is None or not os.path.lexists(path):
            missing = f"'{shown(stored.path or stored.name)[:200]}' is not beside the report; {option} names it"
            self._found.skip(f"samples of {option}", stored.sha256[:16], missing)
            return None
        try:
            return open_dataset(path, specs, preprocess=self._options.preprocess, classes=classes)
        except DataError as error:
            self._found.add(f"samples of {option}", stored.sha256[:16], "unusable", False, error.message)
            return None

    def _check_made_up(self, specs: Sequence[TensorSpec]) -> None:
        options = self._options
        dims, count = options.synthetic.dims, max(options.synthetic.samples, options.measure.batch)
        for spec in specs:
            sizes = [each if isinstance(each, int) else dims.get(each, 1) for each in spec.shape[1:]]
            if any(each < 0 for each in sizes) or count * math.prod(sizes) > _MOST_NUMBERS:
                raise UsageError(f"the report asks for {count} made-up samples of {sizes}, which is absurd")

    # --- figures ----------------------------------------------------------------------------------------------

    def _quality(self, paths: dict[str, Path], judged: Dataset | None) -> None:
        """Compare quality and fidelity on the samples that the report's figures are about."""
        stored, same = self._stored, self._same
        now: dict[str, Evaluation] = {}
        if judged is not None:
            self._progress("evaluating", 0, judged.count)
            now = evaluate_sessions(
                {name: self._session(path) for name, path in paths.items()},
                judged.batches(32),
                reference="original" if "original" in paths else None,
                progress=self._progress,
                total=judged.count,
            )
        why = "the samples are not there, or are others" if judged is None else "the original is not there"
        for role, side in (("original", stored.before), ("artifact", stored.after)):
            for name, value in (side.quality or {}).items():
                title, told = f"{role} {rows.label(name)[:40]}", units.metric(name, value)
                if role not in now:
                    self._found.skip(title, told, why)
                    continue
                got = (now[role].quality or {}).get(name)
                self._found.add(title, told, units.metric(name, got), agrees(value, got, _SAME if same else _OTHER))
        self._fidelity(now["artifact"].fidelity if "artifact" in now else None, why)

    def _fidelity(self, now: dict[str, float | None] | None, why: str) -> None:
        stored, same = self._stored.fidelity or {}, self._same
        tolerances = {
            "top1_agreement": ("same predictions", _SAME if same else _OTHER, units.percent),
            "sqnr_db": ("output SQNR", _SAME_DB if same else _OTHER_DB, units.decibel),
        }
        for key, (title, tolerance, show) in tolerances.items():
            value = stored.get(key)
            if not isinstance(value, float | int):
                continue
            if now is None:
                self._found.skip(title, show(value), why)
                continue
            got = now.get(key)
            self._found.add(title, show(value), show(got), agrees(value, got, tolerance, absolute=key == "sqnr_db"))

    def _latency(self, paths: dict[str, Path], selection: Dataset | None) -> None:
        """Compare how long the artifact takes, and how much faster it is than the original."""
        latency, speedup = self._stored.after.latency, self._stored.speedup
        if latency is None:
            return
        told = units.milliseconds(latency.median_ms)
        why = ""
        if not self._given.latency:
            why = "--no-latency was given"
        elif not self._same:
            why = (
                f"it was measured on {shown(str(self._stored.machine.get('cpu'))[:80])}, or with another onnxruntime"
            )
        elif selection is None:
            why = "the samples are not there, or are others"
        if why or selection is None:
            self._found.skip("artifact latency, median", told, why)
            if speedup is not None:
                self._found.skip("speed-up", units.factor(speedup.value), why)
            return
        inputs = next(iter(selection.batches(self._options.measure.batch))).inputs
        timed = compare_fresh(
            {
                name: partial(lambda each: ready_run(self._session(each), inputs, each.name), path)
                for name, path in paths.items()
            },
            baseline=next(iter(paths)),
            seconds=self._given.seconds,
            seed=self._options.seed,
            progress=self._progress,
        )
        median = timed.stats["artifact"].median_ms
        self._found.add(
            "artifact latency, median",
            told,
            units.milliseconds(median),
            median <= latency.median_ms * (1 + self._given.tolerance),
        )
        if speedup is None:
            return
        if "original" not in paths:
            self._found.skip("speed-up", units.factor(speedup.value), "the original is not there")
            return
        now = timed.ratios["artifact"]
        # Noise on either side is no difference: the intervals must be apart, by the tolerance.
        self._found.add(
            "speed-up",
            f"{units.factor(speedup.value)} [{speedup.low:.2f}, {speedup.high:.2f}]",
            f"{units.factor(now.value)} [{now.low:.2f}, {now.high:.2f}]",
            now.high * (1 + self._given.tolerance) >= speedup.low,
        )

    def _session(self, path: Path) -> ort.InferenceSession:
        measure = self._options.measure
        threads = min(measure.threads, os.cpu_count() or 1)
        return make_session(path, threads=threads, providers=[measure.provider])


def sources_of(stored: StoredReport) -> tuple[StoredData | None, StoredData | None]:
    """The data that was worked with, and the test data where it was a file of its own; None where there was none."""
    test = stored.data.get("test")
    apart = None if test is None or test.name.endswith(" [test]") else test
    working = next((each for each in stored.data.values() if not each.synthetic and each is not apart), None)
    return working, apart


def agrees(reported: float | None, now: float | None, tolerance: float, *, absolute: bool = False) -> bool:
    """Whether two figures are the same up to a tolerance.

    Args:
        reported: What the report says; None where it was not finite.
        now: What was measured.
        tolerance: Relative to what was reported where that is above 1.
        absolute: Not relative.
    """
    if reported is None or now is None or not math.isfinite(now):
        return (reported is None) == (now is None or not math.isfinite(now))
    return abs(reported - now) <= tolerance * (1.0 if absolute else max(1.0, abs(reported)))
