"""Puts what the steps did and what was measured into one report about the original and the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelkit.config.options import Budget
from modelkit.decision import Decision
from modelkit.files import file_record
from modelkit.measure.machine import machine_facts
from modelkit.recipe.cache import external_of, model_hash
from modelkit.recipe.config import RecipeConfig
from modelkit.recipe.figures import ORIGINAL, Figures
from modelkit.recipe.inputs import Inputs
from modelkit.recipe.job import RecipeJob
from modelkit.recipe.steps import SKIPPED, Done, last_of
from modelkit.report.layers import paired
from modelkit.report.report import Gate, Report, Side
from modelkit.report.rows import finite_note
from modelkit.report.summary import DONE, MISSED
from modelkit.transform import verdict


def compose(
    job: RecipeJob, inputs: Inputs, done: Sequence[Done], figures: Mapping[str, Figures], notes: Sequence[str]
) -> Report:
    """Make the report of a recipe.

    Args:
        job: The recipe and its model.
        inputs: The samples that judged.
        done: What came of each step; at least one made something, or missed its budget.
        figures: What was measured, by ``ORIGINAL`` and the names of steps that made something.
        notes: What a reader must know of how the run went.
    """
    recipe: RecipeConfig = job.options.value
    before = figures[ORIGINAL]
    last = last_of(done)
    after = before if last is None else figures[last.step.name]
    checks = _gates(recipe.budget, before, after)
    missed = done[-1].status == MISSED
    if missed:
        own = [gate for gate in done[-1].report["gates"] if not gate["ok"]]
        checks = [Gate(**{**gate, "name": f"step {done[-1].step.number}: {gate['name']}"}) for gate in own]
    met = not missed and all(gate.ok for gate in checks)
    worked = [each for each in done if each.status == DONE]
    return Report(
        command=job.command,
        status=DONE if met else MISSED,
        before=Side(file_record(job.named), before.size, before.latency, before.quality),
        after=Side(_file(job, last), after.size, after.latency, after.quality),
        method=" → ".join(each.step.command for each in done if each.status != SKIPPED),
        speedup=after.speedup,
        fidelity=after.fidelity,
        gates=checks,
        decisions=_decisions(worked, "decisions"),
        layers=paired(before.layers, after.layers),
        history=[history for each in worked for history in each.report["history"]],
        normalisation=_decisions(worked, "normalisation"),
        audit=worked[-1].report["audit"] if worked else None,
        data={"test": inputs.judge.describe()},
        notes=_notes(job, inputs, done, after, notes),
        config=recipe.model_dump(mode="json"),
        origins=dict(job.options.origins),
        seed=recipe.seed,
        machine=machine_facts(),
        steps=[_entry(each, figures.get(each.step.name)) for each in done],
    )


def _gates(budget: Budget, before: Figures, after: Figures) -> list[Gate]:
    return verdict.gates(
        budget,
        before={**before.size, **before.latency},
        after={**after.size, **after.latency},
        loss=verdict.quality_loss(before.quality, after.quality),
        agreement=(after.fidelity or {}).get("top1_agreement"),
        speedup=after.speedup["value"] if after.speedup else None,
    )


def _file(job: RecipeJob, last: Done | None) -> dict[str, Any]:
    """The best that was found, under the name that the artifact has or would have."""
    path = last.path if last is not None and last.path is not None else job.model
    return {**file_record(path), "name": job.output.name}


def _decisions(worked: Iterable[Done], kind: str) -> list[Decision]:
    """Those of all steps, each with the number of its step."""
    return [
        Decision(each["target"], each["action"], each["reason"], {"step": one.step.number, **each["numbers"]})
        for one in worked
        for each in one.report[kind]
    ]


def _notes(job: RecipeJob, inputs: Inputs, done: Sequence[Done], after: Figures, notes: Sequence[str]) -> list[str]:
    source = job.source
    found = list(source.notes) if source is not None else []
    if source is not None and source.container is not None:
        found.append("the artifact is an ONNX file; a recipe writes no state dict back")
    found += [*inputs.notes, *notes]
    known = {note for each in done for note in each.report.get("notes", [])}
    for note in sorted(known - {_SLOWER}, key=lambda note: _first(done, note)):
        found.append(f"step {_first(done, note)}: {note}")
    found += [f"{each.step.title} was skipped: {each.reason}" for each in done if each.status == SKIPPED]
    unknown = finite_note(after.fidelity)
    found += [unknown] if unknown else []
    if after.speedup and after.speedup["high"] < 1:
        found.append(_SLOWER)
    return found


_SLOWER = "the artifact is slower than the original on this machine"


def _first(done: Sequence[Done], note: str) -> int:
    return next(each.step.number for each in done if note in each.report.get("notes", []))


def _entry(done: Done, figures: Figures | None) -> dict[str, Any]:
    """A step as plain values: what it was asked, what it cost, and what there is after it against the original."""
    step, report = done.step, done.report
    made = None
    if done.path is not None:
        record = file_record(done.path)
        made = {"bytes": record["bytes"], "sha256": model_hash(done.path, external_of(done.path))}
    return {
        "number": step.number,
        "command": step.command,
        "status": done.status,
        "reason": done.reason,
        "method": report.get("method"),
        "seconds": round(done.seconds, 3),
        "cached": done.cached,
        "key": done.key or None,
        "input_sha256": done.given,
        "artifact": made,
        "size": figures.size if figures else None,
        "quality": figures.quality if figures else None,
        "fidelity": figures.fidelity if figures else None,
        "latency": figures.latency if figures else None,
        "speedup": figures.speedup if figures else None,
        "gates": report.get("gates", []),
        "candidates": report.get("candidates", []),
        "audit": report.get("audit"),
        "data": report.get("data", {}),
        "notes": report.get("notes", []),
        "config": step.job.options.value.model_dump(mode="json"),
        "origins": dict(step.job.options.origins),
    }
