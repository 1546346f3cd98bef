"""The figures of what the steps of a recipe made, all against the original, on the same samples and side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.config.options import Measure
from modelkit.graph.facts import describe, layer_sizes
from modelkit.graph.load import load
from modelkit.measure.evaluate import evaluate_sessions
from modelkit.measure.latency import compare_fresh
from modelkit.measure.size import measure_size
from modelkit.progress import Progress
from modelkit.runtime import make_session, ready_run

if TYPE_CHECKING:
    import onnxruntime as ort

    from modelkit.data.dataset import Dataset

ORIGINAL = "original"
_LARGE_BYTES = 1 << 29


@dataclass(frozen=True)
class Figures:
    """What was measured of one model.

    Attributes:
        size: Bytes, parameters, multiply-accumulates.
        layers: The nodes with weights, as ``layer_sizes`` gives them.
        quality: Metrics against labels; None without labels.
        fidelity: Agreement with the original; None of the original itself.
        latency: Median and p95 in milliseconds.
        speedup: The original's median over this one's, with its 95 % interval; None of the original itself.
    """

    size: dict[str, Any]
    layers: list[dict[str, Any]]
    quality: dict[str, Any] | None
    fidelity: dict[str, Any] | None
    latency: dict[str, Any]
    speedup: dict[str, float] | None


def measure(
    models: Mapping[str, Path], dataset: Dataset, options: Measure, seed: int, progress: Progress
) -> dict[str, Figures]:
    """Measure models against the first of them.

    Large models are compared with it one by one, so that no more than two are in memory.

    Args:
        models: The models by name, the original as ``ORIGINAL``.
        dataset: What all of them are run on.
        options: How latency is measured.
        seed: Seed of the order of timing.
        progress: Told how far the work is.

    Raises:
        ModelkitError: A model cannot be run.
    """
    others = [name for name in models if name != ORIGINAL]
    large = load(models[ORIGINAL]).size_bytes > _LARGE_BYTES
    found: dict[str, Figures] = {}
    for group in [[name] for name in others] if large and others else [others]:
        found |= _together({name: models[name] for name in (ORIGINAL, *group)}, dataset, options, seed, progress)
    return found


def _together(
    models: Mapping[str, Path], dataset: Dataset, options: Measure, seed: int, progress: Progress
) -> dict[str, Figures]:
    def session(path: Path) -> ort.InferenceSession:
        return make_session(path, threads=options.threads, providers=[options.provider])

    judged = evaluate_sessions(
        {name: session(path) for name, path in models.items()},
        dataset.batches(32),
        reference=ORIGINAL,
        progress=progress,
        total=dataset.count,
    )
    inputs = next(iter(dataset.batches(options.batch))).inputs
    timed = compare_fresh(
        {
            name: partial(lambda each: ready_run(session(each), inputs, each.name), path)
            for name, path in models.items()
        },
        baseline=ORIGINAL,
        seconds=options.seconds,
        seed=seed,
        progress=progress,
    )
    facts = {name: describe(load(path).model) for name, path in models.items()}
    return {
        name: Figures(
            size={**asdict(measure_size(path)), "macs": facts[name].macs},
            layers=layer_sizes(facts[name]),
            quality=judged[name].quality,
            fidelity=judged[name].fidelity,
            latency=asdict(timed.stats[name]),
            speedup=asdict(timed.ratios[name]) if name in timed.ratios else None,
        )
        for name, path in models.items()
    }
