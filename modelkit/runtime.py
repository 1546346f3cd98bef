"""onnxruntime sessions: one place that makes them, so that options and errors are the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.errors import ModelError, ResourceError, UsageError
from modelkit.staging import shown

if TYPE_CHECKING:
    import onnxruntime as ort

DEFAULT_PROVIDERS = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output.

    Attributes:
        name: Its name in the graph.
        dtype: numpy dtype; ``object`` for strings.
        shape: Integers for fixed dimensions, strings for symbolic ones ("?" where unnamed).
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str, ...]


def make_session(
    model: Path | bytes,
    *,
    threads: int = 1,
    providers: Sequence[str] = DEFAULT_PROVIDERS,
    optimized_path: Path | None = None,
    optimize: bool = True,
    arena: bool = True,
) -> ort.InferenceSession:
    """Load a model into onnxruntime.

    Args:
        model: Path of an ONNX file, or its bytes.
        threads: Intra-op threads; 0 lets onnxruntime choose.
        providers: Execution providers, most wanted first.
        optimized_path: Where to save onnxruntime's optimised graph, for audits.
        optimize: False switches all graph optimisations off.
        arena: False gives memory back after each run, which takes less of it and a little longer.

    Raises:
        UsageError: This onnxruntime does not have an execution provider.
        ModelError: The graph is invalid or uses an operator that onnxruntime lacks.
        ResourceError: An execution provider does not work here, or onnxruntime failed for another reason.
    """
    import onnxruntime as ort

    available = ort.get_available_providers()
    for provider in providers:
        if provider not in available:
            raise UsageError(
                f"this onnxruntime has no execution provider '{provider}'", f"it has {', '.join(available)}"
            )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A spinning thread pool would steal time from the session that is measured next to this one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not arena:
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    source = model if isinstance(model, bytes) else _utf8(model)
    try:
        # Its fallback would print on stdout, and measure something else than what was asked for.
        session = ort.InferenceSession(source, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # onnxruntime raises many classes with no common base of its own
        raise _explain(error, "the model" if isinstance(model, bytes) else f"'{model.name}'") from error
    for provider in providers:
        if provider not in session.get_providers():
            raise ResourceError(f"the execution provider {provider} does not work on this machine")
    return session


def _utf8(path: Path) -> str:
    """The path as onnxruntime takes it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"onnxruntime cannot open '{shown(path)}': the name is not valid UTF-8", "rename the file or its folder"
        ) from error
    return str(path)


def _explain(error: Exception, name: str) -> ModelError | ResourceError:
    """Turn what onnxruntime says on loading into one line and a hint."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    missing = re.search(r"No Op registered for (\S+) with domain_version of (\d+)", text) or re.search(
        r"(\S+)\(-?\d+\) is not a registered function/op", text
    )
    if missing:
        return ModelError(
            f"the operator {missing.group(1)} in {name} is not known to onnxruntime",
            "modelkit measures with stock onnxruntime: export the model without custom operators",
        )
    not_implemented = re.search(r"Could not find an implementation for (\S+?)\((\d+)\) node", text)
    if not_implemented:
        return ModelError(
            f"onnxruntime has no kernel for {not_implemented.group(1)} (opset {not_implemented.group(2)}) in {name}",
            "export the model with another opset or operator",
        )
    if "bad_alloc" in text or "Failed to allocate memory" in text:
        return ResourceError(f"onnxruntime ran out of memory while loading {name}")
    return ModelError(f"onnxruntime cannot load {name}: {text[:300]}")


def run(
    session: ort.InferenceSession, feeds: Mapping[str, np.ndarray], name: str, outputs: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Run a session.

    Args:
        session: A loaded model.
        feeds: Arrays by input name, of the model's own types.
        name: What to call the model in an error.
        outputs: Names of the outputs wanted; all by default.

    Returns:
        The outputs, in the order of their names.

    Raises:
        ResourceError: onnxruntime failed; names the model.
    """
    try:
        return [np.asarray(value) for value in session.run(outputs, feeds)]
    except Exception as error:  # onnxruntime raises many classes with no common base of its own
        text = " ".join(str(error).split())
        raise ResourceError(f"onnxruntime failed while running '{name}': {text[:300]}") from error


def ready_run(session: ort.InferenceSession, inputs: Mapping[str, np.ndarray], name: str) -> Callable[[], object]:
    """Bind inputs to a session for timing, and run it once so that what is timed is known to work.

    Args:
        session: A loaded model.
        inputs: Arrays by input name; floats are cast to the model's own kind, others are fed as they are.
        name: What to call the model in an error.

    Returns:
        A call that runs the session.

    Raises:
        ResourceError: onnxruntime failed; names the model.
    """
    feeds = {spec.name: inputs[spec.name].astype(spec.dtype, copy=False) for spec in input_specs(session)}
    run(session, feeds, name)
    return lambda: session.run(None, feeds)


_ORT_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}


def _spec(arg: ort.NodeArg) -> TensorSpec:
    match = re.fullmatch(r"tensor\((\w+)\)", arg.type)
    if match is None or (match.group(1) not in _ORT_DTYPES and match.group(1) != "bfloat16"):
        raise ModelError(f"'{arg.name}' has the type {arg.type}; only plain tensors can be fed and compared")
    if match.group(1) == "bfloat16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(_ORT_DTYPES[match.group(1)])
    shape = tuple(d if isinstance(d, int) else (d or "?") for d in arg.shape)
    return TensorSpec(arg.name, dtype, shape)


def input_specs(session: ort.InferenceSession) -> list[TensorSpec]:
    """Describe a session's inputs.

    Raises:
        ModelError: An input is a sequence, map or optional.
    """
    return [_spec(arg) for arg in session.get_inputs()]


def output_specs(session: ort.InferenceSession) -> list[TensorSpec]:
    """Describe a session's outputs.

    Raises:
        ModelError: An output is a sequence, map or optional.
    """
    return [_spec(arg) for arg in session.get_outputs()]


def class_count(outputs: Sequence[TensorSpec]) -> int | None:
    """Number of classes where the first output is [N, C] with a fixed C of 2 or more; labels must be below it."""
    shape = outputs[0].shape if outputs else ()
    last = shape[-1] if len(shape) == 2 else None
    return last if isinstance(last, int) and last >= 2 else None
