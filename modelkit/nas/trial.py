"""What a worker does with one candidate: build it, train it, write it, and measure what was written."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelkit.architectures.build import build, parse
from modelkit.architectures.signature import Signature
from modelkit.data.dataset import Dataset
from modelkit.errors import ModelError
from modelkit.graph.facts import describe
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.measure.evaluate import evaluate_sessions
from modelkit.measure.quality import primary
from modelkit.nas.data import kept
from modelkit.progress import Progress
from modelkit.runtime import make_session, ready_run

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort

ENTRY = "modelkit.nas.trial:perform"
MODEL = "model.onnx"


def perform(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Try a candidate.

    Args:
        payload: ``document``, ``signature`` or ``around`` (see ``modelkit.nas.derived``), ``folder`` of the trial,
            ``training`` and ``validation`` (files), ``specs``, ``options`` of training, ``epochs`` to train to,
            ``timing``, ``seed``.
        progress: Told how far the training is.

    Returns:
        ``error`` (less is better), ``quality``, ``metric``, ``latency_ms``, ``bytes``, ``macs``, ``parameters``.

    Raises:
        ModelError: It gives no numbers, or cannot be trained.
    """
    from modelkit.train.config import TrainOptions
    from modelkit.train.finetune import finetune

    specs = tuple((name, dtype, tuple(shape)) for name, dtype, shape in payload["specs"])
    training, validation = kept(payload["training"], specs), kept(payload["validation"], specs)
    folder: Path = payload["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    options = TrainOptions(**payload["options"])
    model, extra = _start(payload, training, progress)
    finetune(
        model,
        training,
        options,
        validation=validation,
        progress=progress,
        seed=payload["seed"],
        folder=folder,
        until=payload["epochs"],
        **extra,
    )
    _finish(payload, model, training, progress)
    path = folder / MODEL
    save(model, path)
    if payload["epochs"] >= options.epochs:  # nothing will go on from here
        for checkpoint in folder.glob("training.pt*"):
            checkpoint.unlink()
    return measure(path, validation, payload["timing"], payload.get("reference"))


def _start(payload: Mapping[str, Any], training: Dataset, progress: Progress) -> tuple[ir.Model, dict[str, Any]]:
    """The network before it learns, and what its training needs besides."""
    if "signature" in payload:
        signature = Signature(**payload["signature"])
        return build(parse(payload["document"], "candidate"), signature, seed=payload["seed"]), {}
    from modelkit.nas.derived import start

    return start(payload, training, progress)


def _finish(payload: Mapping[str, Any], model: ir.Model, training: Dataset, progress: Progress) -> None:
    """Bring a network that has learned into the form that is written."""
    normalise(model)
    if "signature" not in payload:
        from modelkit.nas.derived import finish

        finish(payload, model, training, progress)


def signature_facts(signature: Signature) -> dict[str, Any]:
    """A signature as plain values."""
    return asdict(signature)


def measure(path: Path, samples: Dataset, timing: Mapping[str, Any], reference: Path | None = None) -> dict[str, Any]:
    """Measure a model on samples.

    Args:
        path: The ONNX file.
        samples: With labels; without, the agreement with the reference counts.
        timing: ``seconds``, ``threads``, ``batch``.
        reference: The saved model that the space was derived from.

    Returns:
        See ``perform``; ``scores`` has all metrics.

    Raises:
        ModelError: It gives no finite numbers.
    """
    session = make_session(path, threads=timing["threads"])
    sessions = {"model": session}
    if reference is not None and not samples.has_labels:
        sessions["original"] = make_session(reference, threads=timing["threads"])
    found = evaluate_sessions(
        sessions, samples.batches(256), reference="original" if "original" in sessions else None
    )["model"]
    if found.quality is not None:
        metric, higher = primary(found.task)
        quality, scores = found.quality[metric], dict(found.quality)
    else:
        agreement = (found.fidelity or {}).get("top1_agreement")
        metric, higher = ("agreement", True) if agreement is not None else ("sqnr_db", True)
        quality = agreement if agreement is not None else (found.fidelity or {}).get("sqnr_db")  # type: ignore[assignment]
        scores = {name: value for name, value in (found.fidelity or {}).items() if value is not None}
    if quality is None or not math.isfinite(quality) or not _gives_numbers(session, samples):
        raise ModelError(
            f"the candidate's {metric} is no number: its training diverged", "lower training.learning_rate"
        )
    share = metric in ("accuracy", "agreement")
    from modelkit.graph.load import load

    facts = describe(load(path).model)
    return {
        "error": (1 - quality if share else -quality) if higher else quality,
        "quality": quality,
        "metric": metric,
        "scores": scores,
        "latency_ms": latency(session, samples, timing),
        "bytes": path.stat().st_size,
        "macs": facts.macs or 0,
        "parameters": facts.parameters,
    }


def _gives_numbers(session: ort.InferenceSession, samples: Dataset) -> bool:
    """Whether all outputs are finite: class scores that are no numbers still have a largest one."""
    batch = next(iter(samples.batches(256)))
    outputs = session.run(None, batch.inputs)
    return all(np.isfinite(array).all() for array in outputs if array.dtype.kind == "f")


def latency(session: ort.InferenceSession, samples: Dataset, timing: Mapping[str, Any]) -> float:
    """Median milliseconds of one batch, of as many runs as the time allows."""
    batch = next(iter(samples.batches(timing["batch"], limit=timing["batch"])))
    run: Callable[[], object] = ready_run(session, batch.inputs, "candidate")
    for _ in range(3):
        run()
    times: list[int] = []
    until = time.monotonic() + timing["seconds"]
    while len(times) < 9 or (time.monotonic() < until and len(times) < 2000):
        began = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - began)
    return float(np.median(times)) / 1e6


def forget(folder: Path) -> None:
    """Remove what a trial left."""
    shutil.rmtree(folder, ignore_errors=True)
