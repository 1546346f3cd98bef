"""Models side by side: the work behind `modelkit evaluate`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelkit.alike import check_outputs_match, common_inputs
from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.open import is_checkpoint, open_source
from modelkit.checkpoint.source import Source
from modelkit.data.open import open_dataset
from modelkit.data.preprocess import Preprocess
from modelkit.data.synthetic import synthetic_dataset
from modelkit.errors import UsageError
from modelkit.files import file_record
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.load import load
from modelkit.measure.evaluate import evaluate_sessions
from modelkit.measure.latency import compare_fresh
from modelkit.measure.machine import machine_facts
from modelkit.measure.size import measure_size
from modelkit.options import Measure, Synthetic
from modelkit.progress import Progress
from modelkit.report.comparison import SCHEMA
from modelkit.report.rows import finite_note
from modelkit.runtime import class_count, input_specs, make_session, output_specs, ready_run

if TYPE_CHECKING:
    import onnxruntime as ort


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
    entries = []
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
            }
        )
    return {
        "schema": SCHEMA,
        "models": entries,
        "data": dataset.describe(),
        "notes": notes,
        "seed": options.seed,
        "machine": machine_facts(),
    }


def _names(paths: list[Path]) -> list[str]:
    """What to call each model: its file's name, or the path as it was given where names repeat."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
