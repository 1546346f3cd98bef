"""Trying candidates: each is made, saved, loaded again, compared with the original and timed beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.algorithm.config import Effort, PackableConfig, TransformConfig
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.files import Staging, file_record
from modelkit.graph.channels.surgery import kept_positions
from modelkit.graph.facts import describe, layer_sizes
from modelkit.graph.save import save
from modelkit.graph.structure import structure_key
from modelkit.measure.evaluate import Remembered, evaluate_sessions
from modelkit.measure.latency import MIN_ROUNDS, Latency, compare, compare_fresh
from modelkit.measure.machine import machine_facts
from modelkit.measure.size import measure_size
from modelkit.pack.proven import pack_model
from modelkit.progress import Progress
from modelkit.report.layers import paired, with_packed
from modelkit.report.report import Report, Side
from modelkit.report.rows import finite_note
from modelkit.runtime import make_session, ready_run
from modelkit.train.history import noted
from modelkit.transform import verdict
from modelkit.transform.job import Job, Prepared

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort

    from modelkit.data.dataset import Dataset


_LARGE_BYTES = 1 << 29
# An original beyond this is loaded again when it is needed rather than held while others are made.
_HELD_BYTES = 1 << 24
# Samples that are compared at a time, and bytes of inputs that they may take: activations take many times as much.
_ROWS, _FED_BYTES = 32, 1 << 22
# Share of the time for timing that is enough where nothing is chosen by it.
_INFORMING = 0.25


@dataclass(frozen=True)
class _Ended:
    """Where the time for trying was over: after how many ways, and how long they took."""

    ways: int
    seconds: float

    def note(self, limit: float) -> str:
        """What a reader should know."""
        ways = "one way was" if self.ways == 1 else f"{self.ways} ways were"
        return f"the time of {limit:g} s was over when {ways} tried, which took {self.seconds:.1f} s"


class Bench:
    """Tries candidates one by one and measures them side by side.

    Args:
        job: The job.
        prepared: Its loaded inputs.
        stage: Where models are written.
        progress: Told how far the work is.
    """

    def __init__(self, job: Job, prepared: Prepared, stage: Staging, progress: Progress) -> None:
        self._job, self._prepared, self._stage, self._progress = job, prepared, stage, progress
        self._options: TransformConfig = job.options.value
        self._roles = prepared.roles
        self._held: ort.InferenceSession | None = None
        self._began = time.monotonic()
        self._ended: _Ended | None = None
        facts = describe(prepared.model)
        self._size = {**asdict(measure_size(job.model)), "macs": facts.macs}
        self._layers = layer_sizes(facts)
        self._latency: dict[str, Any] | None = None
        # Every candidate is compared with the same outputs of the original: they are computed once.
        self._remembered = Remembered()
        found = evaluate_sessions(
            {"original": self._original()},
            self._batches(self._roles.selection),
            reference=None,
            remembered=self._remembered,
        )
        self._quality = found["original"].quality
        self._let_go()
        self._limits = verdict.Limits(
            budget=self._options.budget,
            safe=job.safe,
            synthetic=self._roles.selection.synthetic,
            original_bytes=int(self._size["file_bytes"]),
            original_quality=self._quality,
            rows=self._roles.selection.count,
        )

    def run_all(self) -> list[Trial]:
        """Try the first candidates and whatever the algorithm wants to try after seeing them."""
        trials: list[Trial] = []
        todo: Sequence[Candidate] = self._prepared.candidates
        while todo:
            fresh: list[Trial] = []
            for candidate in todo:
                if self._is_over([*trials, *fresh]):
                    break
                fresh.append(self._try(candidate, len(trials) + len(fresh)))
            trials += fresh
            self._time([trial for trial in fresh if self._worth_timing(trial)])
            self.pick(trials)
            if self._is_over(trials):
                self._ended = _Ended(len(trials), time.monotonic() - self._began)
                break
            todo = self._prepared.algorithm.refine(trials, self._progress)
        if all(trial.status in ("failed", "compared") for trial in trials):
            failed = "the only way did not work"
            if len(trials) > 1:
                failed = f"none of the {len(trials)} ways that were tried worked"
            raise ModelError(
                f"{failed}: {trials[0].name}: {trials[0].reason}",
                trials[0].hint or "modelkit inspect tells what stands in the way",
            )
        return trials

    def _is_over(self, trials: Sequence[Trial]) -> bool:
        """Whether the time for trying is over; one way that works is always tried to the end."""
        limit = self._options.trying_time
        worked = any(trial.status not in ("failed", "compared") for trial in trials)
        return limit is not None and worked and time.monotonic() - self._began > limit

    def pick(self, trials: list[Trial]) -> Trial | None:
        """Mark every trial and return the best that is inside the budget, or None."""
        selection = self._roles.selection
        for trial in trials:
            trial.missed = next((name for name, reason in self._problems(trial) if reason), "")
        return verdict.pick(trials, self.problem, self.rate, selection.count if selection.has_labels else 0)

    def problem(self, trial: Trial) -> str | None:
        """Why a trial is outside the budget, or None."""
        return next((reason for _, reason in self._problems(trial) if reason), None)

    def _problems(self, trial: Trial) -> Iterator[tuple[str, str | None]]:
        """Each limit in turn, and why the trial misses it."""
        if trial.status in ("failed", "compared"):
            return
        yield "quality", verdict.fidelity_problem(trial, self._limits)
        yield "size", verdict.size_problem(trial, self._limits)
        yield "latency", verdict.latency_problem(trial, self._limits, self._prepared.algorithm.objective)

    def rate(self, trial: Trial) -> float:
        """How good a trial is; lower is better."""
        return verdict.score(trial, self._limits, self._prepared.algorithm.objective)

    def report(self, trial: Trial, trials: list[Trial], met: bool) -> Report:
        """Measure the chosen trial on the test data and put everything together."""
        assert trial.path is not None
        quality, after_quality, fidelity = self._quality, trial.quality, trial.fidelity
        beside = [each for each in trials if each.status == "compared" and each.path is not None]
        compared = {each.name: _side(each, each.quality, each.fidelity) for each in beside}
        if self._roles.test is not None:
            self._progress("testing", 0, self._roles.test.count)
            found = evaluate_sessions(
                {
                    "original": self._original(),
                    "artifact": self._session(trial.path),
                    **{f"beside {each.name}": self._session(each.path) for each in beside if each.path is not None},
                },
                self._batches(self._roles.test),
                reference="original",
                progress=self._progress,
                total=self._roles.test.count,
            )
            quality, after_quality = found["original"].quality, found["artifact"].quality
            fidelity = found["artifact"].fidelity
            for each in beside:
                judged = found[f"beside {each.name}"]
                compared[each.name] = _side(each, judged.quality, judged.fidelity)
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
        unknown = finite_note(fidelity)
        source = self._job.source.notes if self._job.source else []
        notes = [*source, *self._roles.notes, *([unknown] if unknown else [])]
        notes += [] if self._ended is None else [self._ended.note(self._options.trying_time or 0.0)]
        notes += [each.reason for each in trial.decisions if each.action == "warned"]
        if speedup and speedup["high"] < 1:
            notes.append("the artifact is slower than the original on this machine")
        latency = {k: v for k, v in (trial.latency or {}).items() if k != "speedup"} or None
        # What stands for a checkpoint is gone after the run.
        external = self._prepared.loaded.external if self._job.named == self._job.model else []
        return Report(
            command=self._job.command,
            status="done" if met else "budget not met",
            before=Side(file_record(self._job.named, external), self._size, self._latency, quality),
            after=Side(
                {**file_record(trial.path), "name": self._job.output.name}, trial.size, latency, after_quality
            ),
            method=trial.name,
            speedup=speedup,
            fidelity=fidelity,
            gates=checks,
            candidates=[_entry(item) for item in trials],
            beside=list(compared.values()),
            selection_quality=self._quality,
            decisions=trial.decisions,
            layers=paired(self._layers, trial.layers),
            history=trial.history,
            normalisation=self._prepared.changes,
            audit=self._prepared.algorithm.audit(trial.path, trial.decisions),
            data=self._roles.describe(),
            notes=notes,
            config=self._job.options.value.model_dump(mode="json"),
            origins=dict(self._job.options.origins),
            seed=self._options.seed,
            machine=machine_facts(),
        )

    def _original(self) -> ort.InferenceSession:
        """The original, loaded when it is needed."""
        if self._held is None:
            self._held = self._session(self._job.model)
        return self._held

    def _let_go(self) -> None:
        """Give back the memory of a large original."""
        if int(self._size["file_bytes"]) > _HELD_BYTES:
            self._held = None

    def _session(self, path: Path) -> ort.InferenceSession:
        measure = self._options.measure
        return make_session(path, threads=measure.threads, providers=[measure.provider])

    def _batches(self, dataset: Dataset) -> Any:
        one = sum(array.nbytes for array in next(iter(dataset.batches(1))).inputs.values())
        return dataset.batches(max(1, min(_ROWS, _FED_BYTES // max(one, 1))))

    def _try(self, candidate: Candidate, number: int) -> Trial:
        trial = Trial(candidate.name, "compared" if candidate.only_compared else "tried")
        model = self._prepared.model.clone()
        try:
            trial.decisions = candidate.apply(model, self._progress)
            trial.kept = kept_positions(model)
            facts, history, structure = describe(model), noted(model), structure_key(model)
            trial.decisions += self._pack(model)
            path = self._stage.path(f"candidate-{number}.onnx")
            save(model, path)
            session = self._session(path)
            self._progress(f"comparing {candidate.name}", 0, self._roles.selection.count)
            found = evaluate_sessions(
                {"original": self._original(), "candidate": session},
                self._batches(self._roles.selection),
                reference="original",
                progress=self._progress,
                total=self._roles.selection.count,
                remembered=self._remembered,
            )["candidate"]
        except ModelError as error:
            # One way that does not fit this model must not hide the others that do.
            trial.status, trial.reason, trial.hint = "failed", error.message, error.hint or ""
            return trial
        self._let_go()
        trial.path, trial.size = path, {**asdict(measure_size(path)), "macs": facts.macs}
        trial.layers = with_packed(layer_sizes(facts), trial.decisions)
        trial.history, trial.structure = history, structure
        trial.fidelity, trial.quality = found.fidelity, found.quality
        return trial

    def _pack(self, model: ir.Model) -> list[Decision]:
        """Store a candidate's weights in fewer bytes, where the config asks for it."""
        effort = packing_of(self._options)
        return [] if effort == "off" else pack_model(model, effort, progress=self._progress)

    def _worth_timing(self, trial: Trial) -> bool:
        return trial.status == "compared" or (
            trial.status != "failed"
            and not (verdict.fidelity_problem(trial, self._limits) or verdict.size_problem(trial, self._limits))
        )

    def _time(self, trials: list[Trial]) -> None:
        """Time candidates against the original, interleaved; a close call against one is timed once more."""
        if not trials:
            return
        # All sessions of a comparison are loaded at once: large models are compared one by one.
        large = int(self._size["file_bytes"]) > _LARGE_BYTES
        # Where there is nothing to choose by the clock it only has to inform.
        budget = self._options.budget
        only = len(trials) == 1 and not self._job.safe and self._latency is None
        informs = only and budget.min_speedup is None and budget.max_latency is None
        seconds = self._options.measure.seconds * (_INFORMING if informs else 1)
        if large:
            self._held = None
        for together in [[trial] for trial in trials] if large else [trials]:
            self._apply(together, self._compare(together, seconds, informs))
        doubtful = [
            trial
            for trial in trials
            if trial.latency is not None
            and trial.latency["speedup"]["high"] < 1
            and trial.latency["speedup"]["value"] > 0.85
        ]
        if doubtful and not large and not informs:
            self._apply(doubtful, self._compare(doubtful, 3 * self._options.measure.seconds))

    def _compare(self, trials: list[Trial], seconds: float, informs: bool = False) -> Latency:
        """Time trials against the original; one pair of sessions is enough of large models that are named a way."""
        inputs = next(iter(self._roles.selection.batches(self._options.measure.batch))).inputs
        paths = {"original": self._job.model, **{t.name: t.path for t in trials if t.path is not None}}

        makers = {
            name: partial(lambda each: ready_run(self._session(each), inputs, each.name), path)
            for name, path in paths.items()
        }
        how: dict[str, Any] = {
            "baseline": "original",
            "seconds": seconds,
            "seed": self._options.seed,
            "progress": self._progress,
        }
        if informs and int(self._size["file_bytes"]) > _HELD_BYTES:
            return compare({name: make() for name, make in makers.items()}, min_runs=MIN_ROUNDS, **how)
        return compare_fresh(makers, **how)

    def _apply(self, trials: list[Trial], latency: Latency) -> None:
        self._latency = asdict(latency.stats["original"])
        for trial in trials:
            trial.latency = {
                **asdict(latency.stats[trial.name]),
                "speedup": asdict(latency.ratios[trial.name]),
            }


def packing_of(options: TransformConfig) -> Literal["off"] | Effort:
    """How the results of a command are packed."""
    return options.packing if isinstance(options, PackableConfig) else "off"


def _side(trial: Trial, quality: dict[str, Any] | None, fidelity: dict[str, Any] | None) -> dict[str, Any]:
    """A model that is only compared, as plain values, with what it reached on the samples of the final figures."""
    return {
        "name": trial.name,
        "size": trial.size,
        "latency": trial.latency,
        "quality": quality,
        "fidelity": fidelity,
    }


def _entry(trial: Trial) -> dict[str, Any]:
    found = asdict(trial)
    for key in ("path", "decisions", "kept", "hint", "missed", "layers", "history", "structure"):
        del found[key]
    return found
