"""Models side by side: the work behind `modelkit evaluate` and `modelkit compare`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.open import is_checkpoint, open_source
from modelkit.checkpoint.source import Source
from modelkit.compare.alike import check_outputs_match, common_inputs
from modelkit.config.options import Budget, Measure, Regression, Synthetic
from modelkit.data.open import open_dataset
from modelkit.data.preprocess import Preprocess
from modelkit.data.synthetic import synthetic_dataset
from modelkit.errors import BudgetError, UsageError
from modelkit.files import file_record
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.load import load
from modelkit.measure.evaluate import evaluate_sessions
from modelkit.measure.latency import compare_fresh
from modelkit.measure.machine import machine_facts
from modelkit.measure.size import measure_size
from modelkit.progress import Progress
from modelkit.report.comparison import SCHEMA
from modelkit.report.report import Gate
from modelkit.report.rows import finite_note
from modelkit.report.summary import DONE, MISSED
from modelkit.runtime import class_count, input_specs, make_session, output_specs, ready_run
from modelkit.transform import gates, verdict

if TYPE_CHECKING:
    import onnxruntime as ort


# What a new model may cost where no limit is set, beside the safe limits on quality (modelkit.transform.verdict).
SAFE_GROWTH = 0.05
SAFE_SLOWDOWN = 0.1


class Options(Protocol):
    """What is read of the config."""

    @property
    def measure(self) -> Measure: ...  # noqa: D102
    @property
    def synthetic(self) -> Synthetic: ...  # noqa: D102
    @property
    def preprocess(self) -> Preprocess | None: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


def compare_models(
    named: list[Path],
    data: Path | None,
    options: Options,
    progress: Progress,
    loading: Loading = Loading(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Measure every model on the same inputs.

    Args:
        named: The models; the first is the reference.
        data: Inputs; None for made-up ones.
        options: How to measure.
        progress: Told how far the work is.
        loading: How checkpoints among them are read.

    Raises:
        UsageError: No model is named, two paths are the same file, or the models do not have the same inputs
            and outputs.
        ModelkitError: A model or the data cannot be used.
    """
    if not named:
        raise UsageError("no model is named", "give one file, or several to compare")
    if len({path.resolve() for path in named}) < len(named):
        raise UsageError("the same model is named twice", "its figures would be the same but for noise")
    given = [is_checkpoint(path) for path in named]
    with ExitStack() as stack:
        sources = [
            # What is said of checkpoints is not said of the ONNX files beside them.
            stack.enter_context(open_source(path, loading if mine or not any(given) else Loading(), progress))
            for path, mine in zip(named, given, strict=True)
        ]
        return _compare(sources, data, options, progress)


def _compare(sources: list[Source], data: Path | None, options: Options, progress: Progress) -> dict[str, Any]:
    paths = [source.onnx for source in sources]
    reference = load(paths[0]).model
    for path in paths[1:]:
        load(path)
    keys = _names([source.path for source in sources])

    def session(path: Path) -> ort.InferenceSession:
        return make_session(path, threads=options.measure.threads, providers=[options.measure.provider])

    sessions = {key: session(path) for key, path in zip(keys, paths, strict=True)}
    specs = common_inputs({key: input_specs(each) for key, each in sessions.items()})
    outputs = {key: output_specs(each) for key, each in sessions.items()}
    check_outputs_match(outputs)
    notes = list(dict.fromkeys(note for source in sources for note in source.notes))
    if data is not None:
        classes = class_count(outputs[keys[0]])
        dataset = open_dataset(data, specs, preprocess=options.preprocess, classes=classes)
    else:
        dataset = synthetic_dataset(
            specs,
            count=options.synthetic.samples,
            seed=options.seed,
            vocabulary=input_vocabulary(reference),
            dims=dict(options.synthetic.dims),
        )
        what = "outputs were compared" if len(keys) > 1 else "latency was measured"
        notes.append(f"without data, {what} on made-up inputs; --data gives real ones")
    found = evaluate_sessions(
        sessions,
        dataset.batches(32),
        reference=keys[0] if len(keys) > 1 else None,
        progress=progress,
        total=dataset.count,
    )
    inputs = next(iter(dataset.batches(options.measure.batch))).inputs

    factories = {
        key: partial(lambda each: ready_run(session(each), inputs, each.name), path)
        for key, path in zip(keys, paths, strict=True)
    }
    timed = compare_fresh(
        factories, baseline=keys[0], seconds=options.measure.seconds, seed=options.seed, progress=progress
    )
    unknown = next((text for each in found.values() if (text := finite_note(each.fidelity))), None)
    notes += [unknown] if unknown else []
    entries: list[dict[str, Any]] = []
    for key, source in zip(keys, sources, strict=True):
        ratio = timed.ratios.get(key)
        entries.append(
            {
                "name": key,
                "file": file_record(source.path),
                "size": asdict(measure_size(source.onnx)),
                "quality": found[key].quality,
                "fidelity": found[key].fidelity,
                "latency": asdict(timed.stats[key]),
                "speedup": None if ratio is None else asdict(ratio),
                "gates": [],
            }
        )
    return {
        "schema": SCHEMA,
        "status": DONE,
        "models": entries,
        "data": dataset.describe(),
        "notes": notes,
        "seed": options.seed,
        "machine": machine_facts(),
    }


def check_limits(budget: Budget, models: int) -> None:
    """Refuse limits that are about two models where there is one.

    Raises:
        UsageError: There are such limits.
    """
    alone = [name for name, limit in budget if limit is not None and name != "max_latency"]
    if alone and models < 2:
        raise UsageError(
            f"--{alone[0].replace('_', '-')} needs a model to compare with, and one is named",
            "name the reference first",
        )


def hold(found: dict[str, Any], budget: Budget) -> None:
    """Hold models to a budget: each gets its ``gates``, and the whole its ``status``.

    Args:
        found: What ``compare_models`` returned; changed in place.
        budget: The limits; a ``Regression`` without any limit stands for safe ones.

    Raises:
        BudgetError: A gate is missed; its report is ``found``.
    """
    reference, *others = found["models"]
    safe = isinstance(budget, Regression) and all(limit is None for _, limit in budget)
    missed: list[str] = []
    for model in others or [reference]:
        held = _safe_gates(reference, model, found["data"]["synthetic"]) if safe else _gates(reference, model, budget)
        model["gates"] = [asdict(gate) for gate in held]
        missed += [f"{model['name']}: {gates.describe(gate)}" for gate in held if not gate.ok]
    if missed:
        found["status"] = MISSED
        count = f"{len(missed)} gates are" if len(missed) > 1 else "a gate is"
        hint = "no limit was set, so safe ones hold: set your own" if safe else None
        message = f"{count} missed" + (f": {missed[0]}" if len(missed) == 1 else "")
        raise BudgetError(message, hint, found, missed)


def _gates(reference: dict[str, Any], model: dict[str, Any], budget: Budget) -> list[Gate]:
    """The gates of one model, in the order of the options."""
    fidelity, speedup = model["fidelity"] or {}, model["speedup"]
    held = verdict.gates(
        budget,
        before=reference["size"],
        after={**model["size"], "median_ms": model["latency"]["median_ms"]},
        loss=verdict.quality_loss(reference["quality"], model["quality"]),
        agreement=fidelity.get("top1_agreement"),
        speedup=speedup["value"] if speedup else None,
    )
    if not isinstance(budget, Regression):
        return held
    held.append(gates.finite_outputs(fidelity.get("non_finite", 0)))
    if budget.min_agreement is not None:
        held.append(gates.min_agreement(budget.min_agreement, fidelity.get("top1_agreement")))
    if budget.min_sqnr is not None:
        held.append(gates.min_sqnr(budget.min_sqnr, fidelity))
    if budget.max_size_growth is not None:
        held.append(gates.max_size_growth(budget.max_size_growth, *_bytes(reference, model)))
    if budget.max_slowdown is not None:
        held.append(gates.max_slowdown(budget.max_slowdown, speedup))
    return held


def _safe_gates(reference: dict[str, Any], model: dict[str, Any], synthetic: bool) -> list[Gate]:
    """The gates where no limit is set: quality as far as it can be told, then size and speed."""
    fidelity = model["fidelity"] or {}
    loss, agreement = verdict.quality_loss(reference["quality"], model["quality"]), fidelity.get("top1_agreement")
    if loss is not None:
        first = gates.max_drop(verdict.SAFE_DROP, loss, None)
    elif agreement is not None and not synthetic:
        first = gates.max_drop(verdict.SAFE_CHANGED, None, agreement)
    else:
        first = gates.min_sqnr(verdict.SAFE_SQNR_DB, fidelity)
    return [
        first,
        gates.finite_outputs(fidelity.get("non_finite", 0)),
        gates.max_size_growth(SAFE_GROWTH, *_bytes(reference, model)),
        gates.max_slowdown(SAFE_SLOWDOWN, model["speedup"]),
    ]


def _bytes(reference: dict[str, Any], model: dict[str, Any]) -> tuple[int, int]:
    return reference["size"]["file_bytes"], model["size"]["file_bytes"]


def _names(paths: list[Path]) -> list[str]:
    """What to call each model: its file's name, or the path as it was given where names repeat."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
