"""The one order of every transform: load, check, transform, verify, measure, write."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelkit import verdict
from modelkit.candidate import Candidate, Trial
from modelkit.config import Resolved
from modelkit.data.open import open_dataset
from modelkit.data.roles import Roles, assign_roles
from modelkit.data.synthetic import synthetic_dataset
from modelkit.decision import Decision
from modelkit.errors import BudgetError, ModelError
from modelkit.files import Staging, check_outputs, file_record, write_json
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.load import Loaded, load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.graph.verify import verify_same
from modelkit.measure.evaluate import evaluate_sessions
from modelkit.measure.latency import Latency, compare_fresh
from modelkit.measure.machine import machine_facts
from modelkit.measure.size import measure_size
from modelkit.options import Budget, Measure, Objective, Synthetic
from modelkit.progress import Progress, silent
from modelkit.report import markdown
from modelkit.report.plan import Plan
from modelkit.report.report import SCHEMA, Report, Side
from modelkit.runtime import class_count, input_specs, make_session, output_specs

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort

    from modelkit.data.dataset import Dataset
    from modelkit.data.preprocess import Preprocess


class Options(Protocol):
    """What the pipeline reads from any command's config."""

    @property
    def budget(self) -> Budget: ...  # noqa: D102
    @property
    def measure(self) -> Measure: ...  # noqa: D102
    @property
    def objective(self) -> Objective: ...  # noqa: D102
    @property
    def synthetic(self) -> Synthetic: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


class Algorithm(Protocol):
    """A command's side of the work."""

    def candidates(self) -> list[Candidate]:
        """Return what to try first."""

    def refine(self, trials: list[Trial]) -> list[Candidate]:
        """Return what to try next, given what came of the candidates so far; nothing ends the search."""

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any] | None:
        """Say how onnxruntime runs the artifact."""


@dataclass(frozen=True)
class Job:
    """One model to transform.

    Attributes:
        command: Name of the command.
        model: The model file.
        output: Where the artifact goes; its report goes beside it.
        options: The resolved config.
        safe: Whether the built-in safety limits hold where no budget is set (auto modes).
        data: Data to work with; None for made-up inputs.
        test: Data set apart for the final figures.
        preprocess: How images become inputs.
        force: Whether to overwrite an artifact that exists.
    """

    command: str
    model: Path
    output: Path
    options: Resolved[Any]
    safe: bool
    data: Path | None = None
    test: Path | None = None
    preprocess: Preprocess | None = None
    force: bool = False


@dataclass
class Prepared:
    """A job whose inputs are loaded and checked.

    Attributes:
        loaded: The original.
        model: The normalised model.
        changes: What normalising did.
        roles: The samples by their use.
        algorithm: The command's side, made for this model.
        candidates: What will be tried first.
    """

    loaded: Loaded
    model: ir.Model
    changes: list[Decision]
    roles: Roles
    algorithm: Algorithm
    candidates: list[Candidate]


Maker = Callable[["ir.Model", "Dataset | None"], Algorithm]


def outputs_of(output: Path) -> list[Path]:
    """Every file that a run may write for this output."""
    stem = output.name.removesuffix(".onnx")
    return [
        output.with_name(f"{output.name}.data"),
        output,
        output.with_name(f"{stem}.report.json"),
        output.with_name(f"{stem}.report.md"),
    ]


def prepare(job: Job, make: Maker, progress: Progress = silent) -> Prepared:
    """Load and check everything before any work is done.

    Raises:
        ModelkitError: Whatever is wrong with the model, the data or the paths.
    """
    options: Options = job.options.value
    loaded = load(job.model)
    inputs = [job.model, *loaded.external, *(p for p in (job.data, job.test) if p is not None)]
    check_outputs(outputs_of(job.output), inputs, force=job.force or _only_failed(job.output))
    session = make_session(job.model, providers=[options.measure.provider])
    specs = input_specs(session)
    classes = class_count(output_specs(session))
    data = test = None
    if job.data is not None:
        data = open_dataset(job.data, specs, preprocess=job.preprocess, classes=classes)
    if job.test is not None:
        test = open_dataset(job.test, specs, preprocess=job.preprocess, classes=classes)
    del session
    progress("cleaning up the graph", 0, 1)
    model = loaded.model
    vocabulary = input_vocabulary(model)
    changes = normalise(model)
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        cleaned = Path(folder) / "normalised.onnx"
        save(model, cleaned)
        changes.append(verify_same(job.model, cleaned, seed=options.seed, vocabulary=vocabulary))
    made_up = synthetic_dataset(
        specs,
        count=options.synthetic.samples,
        seed=options.seed,
        vocabulary=vocabulary,
        dims=dict(options.synthetic.dims),
    )
    roles = assign_roles(data, test, made_up, seed=options.seed)
    algorithm = make(model, roles.calibration)
    return Prepared(loaded, model, changes, roles, algorithm, algorithm.candidates())


def transform(job: Job, make: Maker, progress: Progress = silent) -> Report:
    """Run a job from file to file.

    The artifact, ``<stem>.report.json`` and ``<stem>.report.md`` are written together or not at all. When a budget
    is not met only the report is written.

    Args:
        job: What to do.
        make: Makes the algorithm for the normalised model and the calibration data.
        progress: Told how far the work is.

    Raises:
        BudgetError: Nothing that was tried is inside the budget; carries the report as ``report``.
        ModelkitError: Anything else that is wrong.
    """
    prepared = prepare(job, make, progress)
    with Staging(job.output.parent) as stage:
        bench = _Bench(job, prepared, stage, progress)
        trials = bench.run_all()
        chosen = verdict.pick(trials, bench.problem, bench.rate)
        best = chosen or _least_bad(trials, bench.rate)
        report = bench.report(best, trials, chosen is not None)
        artifact, names = job.output.name, []
        if chosen is not None and report.status == "done":
            for path in save_as(best, stage, artifact):
                names.append(path)
            report.after.file = file_record(stage.path(artifact))
        reports = [path.name for path in outputs_of(job.output)[2:]]
        write_json(stage.path(reports[0]), report.to_dict())
        stage.path(reports[1]).write_text(markdown.render(report), encoding="utf-8")
        # A failed run may replace its own earlier report: only artifacts are precious.
        failed_before = _only_failed(job.output)
        stage.publish([*names, *reports], force=job.force or failed_before or report.status != "done")
    if report.status != "done":
        raise BudgetError(
            _missed(report, chosen),
            f"{reports[0]} tells what was tried; loosen the budget or give data",
            report=report,
        )
    return report


def plan(job: Job, make: Maker, progress: Progress = silent) -> Plan:
    """Find out what a run would do, without writing anything.

    Args:
        job: What would be done.
        make: Makes the algorithm, as for ``transform``.
        progress: Told how far the work is.

    Raises:
        ModelkitError: Whatever ``transform`` would refuse before it starts.
    """
    prepared = prepare(job, make, progress)
    entries: list[dict[str, Any]] = []
    best: tuple[int, list[Decision]] | None = None
    for candidate in prepared.candidates:
        model = prepared.model.clone()
        try:
            decisions = candidate.apply(model, progress)
        except ModelError as error:
            entries.append({"name": candidate.name, "bytes": None, "reason": error.message})
            continue
        predicted = _saved_bytes(model)
        entries.append({"name": candidate.name, "bytes": predicted, "reason": ""})
        if best is None or predicted < best[0]:
            best = predicted, decisions
    return Plan(
        model=job.model.name,
        output=str(job.output),
        original_bytes=prepared.loaded.size_bytes,
        candidates=entries,
        decisions=[] if best is None else best[1],
        data=prepared.roles.describe(),
        config=job.options.value.model_dump(mode="json"),
        origins=dict(job.options.origins),
    )


def _saved_bytes(model: ir.Model) -> int:
    """How large the file would be; in a small model the graph itself weighs more than the weights."""
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        return sum(path.stat().st_size for path in save(model, Path(folder) / "plan.onnx"))


def save_as(trial: Trial, stage: Staging, name: str) -> list[str]:
    """Give the chosen trial's model its final name within the staging folder; returns the files' names."""
    from modelkit.graph.load import load as reload

    assert trial.path is not None
    target = stage.path(name)
    external = trial.path.with_name(trial.path.name + ".data")
    if not external.exists():
        trial.path.rename(target)
        return [name]
    # The main file names its data file, so it must be written anew.
    written = save(reload(trial.path).model, target, external=True)
    return [path.name for path in reversed(written)]


class _Bench:
    """Tries candidates one by one and measures them side by side.

    Args:
        job: The job.
        prepared: Its loaded inputs.
        stage: Where models are written.
        progress: Told how far the work is.
    """

    def __init__(self, job: Job, prepared: Prepared, stage: Staging, progress: Progress) -> None:
        self._job, self._prepared, self._stage, self._progress = job, prepared, stage, progress
        self._options: Options = job.options.value
        self._roles = prepared.roles
        self._original = self._session(job.model)
        self._size = asdict(measure_size(job.model))
        self._latency: dict[str, Any] | None = None
        found = evaluate_sessions({"original": self._original}, self._batches(self._roles.selection), reference=None)
        self._quality = found["original"].quality
        self._limits = verdict.Limits(
            budget=self._options.budget,
            safe=job.safe,
            synthetic=self._roles.selection.synthetic,
            original_bytes=int(self._size["file_bytes"]),
            original_quality=self._quality,
        )

    def run_all(self) -> list[Trial]:
        """Try the first candidates and whatever the algorithm wants to try after seeing them."""
        trials: list[Trial] = []
        todo: Sequence[Candidate] = self._prepared.candidates
        while todo:
            fresh = [self._try(candidate, len(trials) + i) for i, candidate in enumerate(todo)]
            trials += fresh
            self._time([trial for trial in fresh if self._worth_timing(trial)])
            verdict.pick(trials, self.problem, self.rate)
            todo = self._prepared.algorithm.refine(trials)
        if all(trial.status == "failed" for trial in trials):
            raise ModelError(
                f"none of the {len(trials)} ways that were tried worked: {trials[0].name}: {trials[0].reason}",
                "modelkit inspect tells what stands in the way",
            )
        return trials

    def problem(self, trial: Trial) -> str | None:
        """Why a trial is outside the budget, or None."""
        return (
            verdict.fidelity_problem(trial, self._limits)
            or verdict.size_problem(trial, self._limits)
            or verdict.latency_problem(trial, self._limits, self._options.objective)
        )

    def rate(self, trial: Trial) -> float:
        """How good a trial is; lower is better."""
        return verdict.score(trial, self._limits, self._options.objective)

    def report(self, trial: Trial, trials: list[Trial], met: bool) -> Report:
        """Measure the chosen trial on the test data and put everything together."""
        assert trial.path is not None
        quality, after_quality, fidelity = self._quality, trial.quality, trial.fidelity
        if self._roles.test is not None:
            self._progress("testing", 0, self._roles.test.count)
            found = evaluate_sessions(
                {"original": self._original, "artifact": self._session(trial.path)},
                self._batches(self._roles.test),
                reference="original",
                progress=self._progress,
                total=self._roles.test.count,
            )
            quality, after_quality = found["original"].quality, found["artifact"].quality
            fidelity = found["artifact"].fidelity
        speedup = trial.latency["speedup"] if trial.latency else None
        checks = verdict.gates(
            self._options.budget,
            before={**self._size, **(self._latency or {})},
            after={**trial.size, **(trial.latency or {})},
            loss=verdict.quality_loss(quality, after_quality),
            agreement=(fidelity or {}).get("top1_agreement"),
            speedup=speedup["value"] if speedup else None,
        )
        met = met and all(gate.ok for gate in checks)
        notes = list(self._roles.notes)
        if speedup and speedup["high"] < 1:
            notes.append("the artifact is slower than the original on this machine")
        latency = {k: v for k, v in (trial.latency or {}).items() if k != "speedup"} or None
        return Report(
            command=self._job.command,
            status="done" if met else "budget not met",
            before=Side(file_record(self._job.model), self._size, self._latency, quality),
            after=Side(file_record(trial.path), trial.size, latency, after_quality),
            method=trial.name,
            speedup=speedup,
            fidelity=fidelity,
            gates=checks,
            candidates=[_entry(item) for item in trials],
            decisions=trial.decisions,
            normalisation=self._prepared.changes,
            audit=self._prepared.algorithm.audit(trial.path, trial.decisions),
            data=self._roles.describe(),
            notes=notes,
            config=self._job.options.value.model_dump(mode="json"),
            origins=dict(self._job.options.origins),
            seed=self._options.seed,
            machine=machine_facts(),
        )

    def _session(self, path: Path) -> ort.InferenceSession:
        measure = self._options.measure
        return make_session(path, threads=measure.threads, providers=[measure.provider])

    def _batches(self, dataset: Dataset) -> Any:
        return dataset.batches(32)

    def _try(self, candidate: Candidate, number: int) -> Trial:
        trial = Trial(candidate.name)
        model = self._prepared.model.clone()
        try:
            trial.decisions = candidate.apply(model, self._progress)
            path = self._stage.path(f"candidate-{number}.onnx")
            save(model, path)
            session = self._session(path)
            self._progress(f"comparing {candidate.name}", 0, self._roles.selection.count)
            found = evaluate_sessions(
                {"original": self._original, "candidate": session},
                self._batches(self._roles.selection),
                reference="original",
                progress=self._progress,
                total=self._roles.selection.count,
            )["candidate"]
        except ModelError as error:
            # One way that does not fit this model must not hide the others that do.
            trial.status, trial.reason = "failed", error.message
            return trial
        trial.path, trial.size = path, asdict(measure_size(path))
        trial.fidelity, trial.quality = found.fidelity, found.quality
        return trial

    def _worth_timing(self, trial: Trial) -> bool:
        return trial.status != "failed" and not (
            verdict.fidelity_problem(trial, self._limits) or verdict.size_problem(trial, self._limits)
        )

    def _time(self, trials: list[Trial]) -> None:
        """Time candidates against the original, interleaved; a close call against one is timed once more."""
        if not trials:
            return
        self._apply(trials, self._compare(trials, self._options.measure.seconds))
        doubtful = [
            trial
            for trial in trials
            if trial.latency is not None
            and trial.latency["speedup"]["high"] < 1
            and trial.latency["speedup"]["value"] > 0.85
        ]
        if doubtful:
            self._apply(doubtful, self._compare(doubtful, 3 * self._options.measure.seconds))

    def _compare(self, trials: list[Trial], seconds: float) -> Latency:
        feeds = next(iter(self._roles.selection.batches(self._options.measure.batch))).inputs
        paths = {"original": self._job.model, **{t.name: t.path for t in trials if t.path is not None}}

        def factory(path: Path) -> Callable[[], Callable[[], object]]:
            def make() -> Callable[[], object]:
                session = self._session(path)
                return lambda: session.run(None, feeds)

            return make

        return compare_fresh(
            {name: factory(path) for name, path in paths.items()},
            baseline="original",
            seconds=seconds,
            seed=self._options.seed,
            progress=self._progress,
        )

    def _apply(self, trials: list[Trial], latency: Latency) -> None:
        self._latency = asdict(latency.stats["original"])
        for trial in trials:
            ratio = latency.ratios[trial.name]
            trial.latency = {
                **asdict(latency.stats[trial.name]),
                "speedup": {"value": ratio.value, "low": ratio.low, "high": ratio.high},
            }


def _least_bad(trials: list[Trial], rate: Callable[[Trial], float]) -> Trial:
    """The rejected candidate to show when nothing was good enough."""
    alive = [trial for trial in trials if trial.status != "failed"]
    loss = {id(t): -float((t.fidelity or {}).get("sqnr_db") or 0.0) for t in alive}
    return min(alive, key=lambda trial: (trial.latency is None, loss[id(trial)], rate(trial)))


def _entry(trial: Trial) -> dict[str, Any]:
    found = asdict(trial)
    del found["path"], found["decisions"]
    return found


def _only_failed(output: Path) -> bool:
    """Whether all that is there is the report of a run that missed its budget: it may be replaced unasked."""
    data, artifact, report, _ = outputs_of(output)
    if os.path.lexists(data) or os.path.lexists(artifact):
        return False
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == SCHEMA and found.get("status") == "budget not met"


def _missed(report: Report, chosen: Trial | None) -> str:
    missed = [f"{gate.name} {gate.got} (asked {gate.asked})" for gate in report.gates if not gate.ok]
    if chosen is not None and missed:
        return f"the best candidate, {report.method}, misses the budget on the test data: {'; '.join(missed)}"
    nearest = next(entry for entry in report.candidates if entry["name"] == report.method)
    return f"nothing that was tried is inside the budget; the nearest, {report.method}: {nearest['reason']}"
