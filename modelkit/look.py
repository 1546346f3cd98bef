"""Looking at models without changing any: evaluate, compare, verify and inspect, as ``modelkit.api`` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.checkpoint.loading import Loading
from modelkit.compare.config import CompareConfig, EvaluateConfig
from modelkit.config.resolve import Resolved, resolve
from modelkit.progress import Progress, silent

if TYPE_CHECKING:
    from modelkit.report.verification import Verification


def evaluate(
    models: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    config: Resolved[EvaluateConfig] | Mapping[str, Any] | None = None,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure models side by side: size, quality, agreement with the first one, latency.

    Args:
        models: ONNX files or checkpoints with the same inputs and outputs; the first is the reference.
        data: Inputs, with labels for quality; made-up inputs without.
        config: Options as dotted keys, or already resolved.
        loading: For checkpoints their architecture, inputs and trust; the same for all of them.
        progress: Told how far the work is.

    Returns:
        ``{"schema": "modelkit.comparison/1", "status": ..., "models": [...], "data": ..., "notes": [...],
        "machine": ..., "config": ..., "origins": ...}``; origins tell where each option's value came from.

    Raises:
        BudgetError: A model is outside the budget; carries the same as ``report``.
        ModelkitError: A model or the data cannot be used.
    """
    if not isinstance(config, Resolved):
        config = resolve(EvaluateConfig, flags={key: (value, key) for key, value in (config or {}).items()})
    return _evaluate(models, data, config, loading, progress)


def compare(
    old: str | Path,
    new: str | Path,
    *,
    data: str | Path | None = None,
    config: Resolved[CompareConfig] | Mapping[str, Any] | None = None,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> dict[str, Any]:
    """Hold a new model against the one that it is to replace.

    Args:
        old: An ONNX file or a checkpoint.
        new: The same, with the same inputs and outputs.
        data: Inputs, with labels for quality; made-up inputs without.
        config: Options as dotted keys (``{"budget.max_drop": 0.005}``), or already resolved. Without any limit safe
            ones hold: 1 % of quality or 2 % of the predictions, 5 % of size, 10 % of time.
        loading: For checkpoints their architecture, inputs and trust; the same for both.
        progress: Told how far the work is.

    Returns:
        What ``evaluate`` returns; the second of ``models`` has ``gates``.

    Raises:
        BudgetError: A gate is missed; carries the same as ``report``.
        ModelkitError: A model or the data cannot be used.
    """
    if not isinstance(config, Resolved):
        config = resolve(CompareConfig, flags={key: (value, key) for key, value in (config or {}).items()})
    return _evaluate([old, new], data, config, loading, progress)


def _evaluate(
    models: Sequence[str | Path],
    data: str | Path | None,
    config: Resolved[EvaluateConfig] | Resolved[CompareConfig],
    loading: Loading,
    progress: Progress,
) -> dict[str, Any]:
    from modelkit.compare.compare import check_limits, compare_models, hold

    paths = [Path(path) for path in models]
    check_limits(config.value.budget, len(paths))
    found = compare_models(paths, None if data is None else Path(data), config.value, progress, loading)
    found |= {"config": config.value.model_dump(mode="json"), "origins": dict(config.origins)}
    hold(found, config.value.budget)
    return found


def verify(
    report: str | Path,
    *,
    model: str | Path | None = None,
    artifact: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    tolerance: float | str = 0.5,
    seconds: float = 2.0,
    latency: bool = True,
    progress: Progress = silent,
) -> Verification:
    """Find out whether what a report says is so.

    Args:
        report: The ``.report.json`` beside an artifact. Nothing in it is trusted.
        model: The original, where it is not beside the report; the same for the others.
        artifact: The artifact.
        data: The data that was worked with.
        test: The data that was tested on.
        loading: For a checkpoint its architecture, inputs and trust.
        tolerance: How much slower than reported the artifact may run: 0.5 or "50%".
        seconds: Time spent on timing each model.
        latency: Whether to measure latency.
        progress: Told how far the work is.

    Returns:
        Each figure as reported and as found; what differs is told and not raised.

    Raises:
        ModelkitError: The file is no report, names what is not beside it, or a file cannot be read.
    """
    from modelkit.verify.verify import Given, VerifyConfig, verify_report

    config = resolve(VerifyConfig, flags={"tolerance": (tolerance, "--tolerance"), "seconds": (seconds, "--seconds")})
    named = {"model": model, "artifact": artifact, "data": data, "test": test}
    given = Given(
        **{role: Path(path) for role, path in named.items() if path is not None},
        loading=loading,
        tolerance=config.value.tolerance,
        latency=latency,
        seconds=config.value.seconds,
    )
    return verify_report(Path(report), given, progress)


def inspect(model: str | Path, *, loading: Loading = Loading()) -> dict[str, Any]:  # noqa: B008 - frozen
    """Tell what is in a model file.

    Args:
        model: An ONNX file or a checkpoint.
        loading: For a checkpoint its architecture, inputs and trust; without an architecture its weights are listed.

    Returns:
        ``{"schema": "modelkit.inspection/1", "file": ..., "size": ..., "facts": ...}``; the facts are those of
        ``modelkit.graph.facts.ModelFacts``. For weights without an architecture
        ``{"schema": "modelkit.state/1", "file": ..., "tensors": [...], ...}``.

    Raises:
        ModelkitError: The file cannot be read as a model.
    """
    from dataclasses import asdict

    from modelkit.checkpoint.open import open_source
    from modelkit.checkpoint.tell import is_state, tell
    from modelkit.files import file_record
    from modelkit.graph.facts import describe
    from modelkit.graph.load import load
    from modelkit.measure.size import measure_size
    from modelkit.report.inspection import SCHEMA

    path = Path(model)
    if loading.arch is None and not loading.inputs and is_state(path):
        return tell(path, trust=loading.trust)
    with open_source(path, loading) as source:
        facts = describe(load(source.onnx).model)
        return {
            "schema": SCHEMA,
            "file": file_record(path),
            "size": asdict(measure_size(source.onnx)),
            "facts": asdict(facts),
            "notes": source.notes,
        }
