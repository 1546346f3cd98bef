"""The one order of every transform: load, check, transform, verify, measure, write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelkit.algorithm.candidate import Trial
from modelkit.checkpoint.artifact import write_beside
from modelkit.decision import Decision
from modelkit.errors import BudgetError, ModelError, ResourceError
from modelkit.files import Staging, file_record, outputs_of, shown
from modelkit.graph.load import load
from modelkit.graph.save import save, saved_bytes
from modelkit.pack.proven import SECONDS
from modelkit.pack.store import pack_weights
from modelkit.progress import Progress, silent
from modelkit.report.plan import Plan
from modelkit.report.report import Report
from modelkit.report.write import write_report
from modelkit.transform import gates
from modelkit.transform.bench import Bench, packing_of
from modelkit.transform.job import Job, Maker, only_failed, opened, prepare


def transform(job: Job, make: Maker, progress: Progress = silent) -> Report:
    """Run a job from file to file.

    The artifact, ``<stem>.report.json`` and ``<stem>.report.md`` are written together or not at all, and the
    page ``<stem>.report.html`` with them where the job asks for it. When a budget
    is not met only the report is written. Pruning a state dict also writes it changed in the same way, in the
    format that it had, and a plan of what changed.

    Args:
        job: What to do.
        make: Makes the algorithm for the normalised model and the calibration data.
        progress: Told how far the work is.

    Raises:
        BudgetError: Nothing that was tried is inside the budget; carries the report as ``report``.
        ModelkitError: Anything else that is wrong.
    """
    with opened(job, progress) as ready, _working(ready.work, resume=ready.resume):
        return _transform(ready, make, progress)


@contextmanager
def _working(folder: Path, *, resume: bool) -> Iterator[None]:
    """Keep what an algorithm leaves for a resumption only where the run is ended from outside, or by the machine."""
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except ResourceError:
        raise
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _transform(job: Job, make: Maker, progress: Progress) -> Report:
    prepared = prepare(job, make, progress)
    with Staging(job.output.parent) as stage:
        bench = Bench(job, prepared, stage, progress)
        trials = bench.run_all()
        chosen = bench.pick(trials)
        best = chosen or _least_bad(trials, bench.rate)
        report = bench.report(best, trials, chosen is not None)
        artifact = job.output.name
        names: list[str] = []
        if chosen is not None and report.status == "done":
            if job.writes_back and job.source is not None and best.path is not None:
                beside, note = write_beside(job.source, stage, job.outputs, prepared.model, best.path, best.kept)
                names += beside
                report.notes += [note] if note else []
            assert best.path is not None
            written = save_as(best.path, stage, artifact)
            names += written
            external = [stage.path(name) for name in written if name != artifact]
            report.after.file = file_record(stage.path(artifact), external)
        reports = [path.name for path in outputs_of(job.output, html=job.html)[2:]]
        older = older_artifact(job) if report.status != "done" else None
        if older is not None:
            report.notes.append(older)
        if report.status != "done" and job.keeps_best and best.path is not None:
            beside_name = f"{artifact.removesuffix('.onnx')}.missed.onnx"
            names += save_as(best.path, stage, beside_name)
            report.after.file = {**report.after.file, **file_record(stage.path(beside_name))}
            report.notes.append(f"the nearest to the budget is kept as {shown(beside_name)}")
        write_report(report, stage, reports)
        # A failed run may replace its own earlier report: only artifacts are precious.
        failed_before = only_failed(job.output)
        stage.publish([*names, *reports], force=job.force or failed_before or report.status != "done")
    if report.status != "done":
        raise BudgetError(
            _missed(report, chosen),
            "; ".join(filter(None, [f"{reports[0]} tells what was tried", _in_the_way(trials), _LOOSEN, older])),
            report=report,
        )
    return report


def plan(job: Job, make: Maker, progress: Progress = silent, keep: Path | None = None) -> Plan:
    """Find out what a run would do, without writing anything.

    Args:
        job: What would be done.
        make: Makes the algorithm, as for ``transform``.
        progress: Told how far the work is.
        keep: Where to write the smallest candidate all the same, for whatever is planned to come after it.

    Raises:
        ModelkitError: Whatever ``transform`` would refuse before it starts.
    """
    with opened(job, progress) as ready:
        return _plan(ready, make, progress, keep)


def _plan(job: Job, make: Maker, progress: Progress, keep: Path | None) -> Plan:
    prepared = prepare(job, make, progress)
    entries: list[dict[str, Any]] = []
    best: tuple[int, list[Decision]] | None = None
    for candidate in prepared.candidates:
        model = prepared.model.clone()
        try:
            decisions = (candidate.sketch or candidate.apply)(model, progress)
        except ModelError as error:
            entries.append({"name": candidate.name, "bytes": None, "reason": error.message})
            continue
        packing = packing_of(job.options.value)
        if packing != "off":
            pack_weights(model, prefix=packing != "load", seconds=SECONDS[packing], progress=progress)
        predicted = saved_bytes(model)
        entries.append({"name": candidate.name, "bytes": predicted, "reason": ""})
        if best is None or predicted < best[0]:
            best = predicted, decisions
            if keep is not None:
                save(model, keep)
    return Plan(
        model=job.named.name,
        output=str(job.output),
        original_bytes=prepared.loaded.size_bytes,
        candidates=entries,
        decisions=[] if best is None else best[1],
        data=prepared.roles.describe(),
        config=job.options.value.model_dump(mode="json"),
        origins=dict(job.options.origins),
    )


def older_artifact(job: Job) -> str | None:
    """What to say of an artifact that is there although this run wrote none."""
    if not any(os.path.lexists(path) for path in outputs_of(job.output)[:2]):
        return None
    return f"the {shown(job.output.name)} that is there comes from an earlier run and was left as it is"


def save_as(path: Path, stage: Staging, name: str) -> list[str]:
    """Give a finished model its final name within the staging folder; returns the files' names."""
    target = stage.path(name)
    external = path.with_name(path.name + ".data")
    if not external.exists():
        path.rename(target)
        return [name]
    # The main file names its data file, so it must be written anew.
    written = save(load(path).model, target, external=True)
    return [path.name for path in reversed(written)]


def _least_bad(trials: list[Trial], rate: Callable[[Trial], float]) -> Trial:
    """The rejected candidate to show when nothing was good enough."""
    alive = [trial for trial in trials if trial.status not in ("failed", "compared")]
    loss = {id(t): -float((t.fidelity or {}).get("sqnr_db") or 0.0) for t in alive}
    return min(alive, key=lambda trial: (trial.latency is None, loss[id(trial)], rate(trial)))


_LOOSEN = "loosen the budget or give data"


def _in_the_way(trials: Sequence[Trial]) -> str:
    """The layer that was found to cost the most, where layers were ranked."""
    ranked = [each for trial in trials for each in trial.decisions if each.action == "ranked"]
    return f"what costs most is '{ranked[0].target}'" if ranked else ""


def _missed(report: Report, chosen: Trial | None) -> str:
    missed = gates.missed(report.gates)
    if chosen is not None and missed:
        return f"the best candidate, {report.method}, misses the budget on the test data: {missed}"
    nearest = next(entry for entry in report.candidates if entry["name"] == report.method)
    return f"nothing that was tried is inside the budget; the nearest, {report.method}: {nearest['reason']}"
