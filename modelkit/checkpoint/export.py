"""From a torch module to an ONNX file that computes the same, checked by running both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelkit.checkpoint.container import arrays_of
from modelkit.checkpoint.links import Links, tidy
from modelkit.checkpoint.loading import InputSpec
from modelkit.checkpoint.quiet import quiet
from modelkit.errors import ModelError
from modelkit.files import shown
from modelkit.runtime import TensorSpec, input_specs, make_session

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 20
TOLERANCE = 1e-4
_FIXED = "if it only takes one size of batch, say so: --input 1x3x32x32:float32:fixed"
_BATCH = 2
_LARGE = 1_900_000_000


def export_module(net: nn.Module, specs: Sequence[InputSpec], path: Path, what: str) -> Links:
    """Export a module whose code is known, by torch.export; parameters keep their names.

    torch optimises nothing here, so that constants are called what they are called in the state dict.

    Returns:
        How the graph and the module's state dict belong together.

    Raises:
        ModelError: An input does not fit, torch cannot trace the module, or the result computes something else.
    """
    import torch

    examples = [_example(spec, 0) for spec in specs]
    _try_forward(net, specs, examples, what)
    args, kwargs = _split(specs, examples)
    batch = torch.export.Dim("batch", min=1)
    free = [None if spec.fixed else {0: batch} for spec in specs]
    dynamic: Any = None
    if not all(spec.fixed for spec in specs):
        places, named = _split(specs, free)
        names = _parameters(net)
        dynamic = {**dict(zip(names, places, strict=False)), **named} if named else tuple(places)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                net,
                args,
                kwargs=kwargs or None,
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
            )
            assert program is not None
            program.save(str(path), external_data=_is_large(net.state_dict()))
    except Exception as error:  # the exporter raises many kinds, most of them its own
        raise _cannot(error, what, dynamic is not None) from error
    links = tidy(path, arrays_of(net.state_dict()))
    _verify(path, net, specs, what)
    return links


def export_program(program: torch.export.ExportedProgram, path: Path, what: str) -> None:
    """Export an ExportedProgram; which axes are free was decided when it was made.

    Raises:
        ModelError: torch cannot convert it, or the result computes something else.
    """
    import torch

    try:
        with quiet(), torch.no_grad():
            made = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False, opset_version=OPSET)
            assert made is not None
            made.save(str(path), external_data=_is_large(program.state_dict))
            net = program.module()
    except Exception as error:  # as above
        raise _cannot(error, what, dynamic=False) from error
    tidy(path, arrays_of(program.state_dict))
    _verify(path, net, None, what)


def export_script(net: torch.jit.ScriptModule, specs: Sequence[InputSpec], path: Path, what: str) -> None:
    """Export TorchScript, which only the older exporter can read.

    Raises:
        ModelError: An input does not fit, an operator has no ONNX form, or the result computes something else.
    """
    import torch

    examples = [_example(spec, 0) for spec in specs]
    _try_forward(net, specs, examples, what)
    names = [spec.name or f"input_{i}" if len(specs) > 1 else spec.name or "input" for i, spec in enumerate(specs)]
    with quiet(), torch.no_grad():
        count = len(_tensors(net(*examples)))
        outputs = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
        free = {name: {0: "batch"} for name, spec in zip(names, specs, strict=True) if not spec.fixed}
        if free:
            free.update({name: {0: "batch"} for name in outputs})
        try:
            torch.onnx.export(
                net,
                tuple(examples),
                str(path),
                dynamo=False,
                opset_version=18,
                input_names=names,
                output_names=outputs,
                dynamic_axes=free or None,
                do_constant_folding=False,
            )
        except Exception as error:  # as above
            raise _cannot(error, what, bool(free)) from error
    tidy(path, arrays_of(net.state_dict()))
    _verify(path, net, [InputSpec(None, s.shape, s.dtype, s.fixed) for s in specs], what)


def _parameters(net: nn.Module) -> list[str]:
    import inspect

    return list(inspect.signature(net.forward).parameters)


def _split(specs: Sequence[InputSpec], values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named ones of some values, as the specs say."""
    places = tuple(value for spec, value in zip(specs, values, strict=True) if spec.name is None)
    return places, {spec.name: value for spec, value in zip(specs, values, strict=True) if spec.name is not None}


def _example(spec: InputSpec, seed: int, batch: int | None = None) -> torch.Tensor:
    """Random numbers for one input: normal, or 0 and 1, so that they are valid as tokens of any vocabulary.

    A free batch is never 1: torch would take that for a constant.
    """
    import torch

    size = spec.shape if spec.fixed else (batch or max(spec.shape[0], _BATCH), *spec.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, spec.dtype)
    if dtype.is_floating_point:
        return torch.randn(size, generator=generator).to(dtype)
    return torch.randint(0, 2, size, generator=generator).to(dtype)


def _try_forward(net: nn.Module, specs: Sequence[InputSpec], examples: list[torch.Tensor], what: str) -> None:
    import torch

    args, kwargs = _split(specs, examples)
    shapes = ", ".join("x".join(map(str, each.shape)) for each in examples)
    try:
        with quiet(), torch.no_grad():
            found = net(*args, **kwargs)
    except Exception as error:  # user code
        raise ModelError(
            f"'{what}' does not run on inputs of shape {shapes}: {_last_line(error)}",
            "--input gives shape and type of each input, such as --input 1x3x32x32:float32",
        ) from error
    if not _tensors(found):
        raise ModelError(f"'{what}' returns a {type(found).__name__}; tensors, or lists of them, are expected")


def _tensors(found: Any) -> list[torch.Tensor]:
    """All tensors in what a module returned, in order."""
    import torch

    if isinstance(found, torch.Tensor):
        return [found]
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [tensor for item in found for tensor in _tensors(item)]
    return []


def _is_large(tensors: Mapping[str, Any]) -> bool:
    """Whether weights take nearly the 2 GB that fit into one ONNX file."""
    return bool(sum(t.numel() * t.element_size() for t in tensors.values() if hasattr(t, "numel")) > _LARGE)


def _cannot(error: Exception, what: str, dynamic: bool) -> ModelError:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    hint = "torch cannot turn its code into a graph; export it to ONNX by hand"
    if dynamic:
        hint = _FIXED
    return ModelError(f"'{what}' cannot be exported: {_last_line(root)}", hint)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(f"{type(error).__name__}: {lines[0] if lines else ''}"[:400])


def _verify(path: Path, net: Any, specs: Sequence[InputSpec] | None, what: str) -> None:
    """Run the file and the module on the same random inputs, in two sizes of batch where it is free.

    Raises:
        ModelError: An output differs by more than 1e-4 of its largest value.
    """
    import torch

    session = make_session(path)
    declared = input_specs(session)
    for run, batch in enumerate((_BATCH, 3)):
        if specs is None:
            drawn = [_declared(spec, run, batch) for spec in declared]
        else:
            drawn = [_example(spec, run, batch) for spec in specs]
        args, kwargs = _split(specs, drawn) if specs is not None else (tuple(drawn), {})
        feeds = _feeds(declared, args, kwargs, what)
        try:
            with quiet(), torch.no_grad():
                expected = _tensors(net(*args, **kwargs))
        except Exception as error:  # the module's code
            raise ModelError(f"'{what}' does not run on a batch of {batch}: {_last_line(error)}", _FIXED) from error
        try:
            found = session.run(None, feeds)
        except Exception as error:  # onnxruntime's errors have no common base
            raise ModelError(f"'{what}' was exported, but its graph does not run: {_last_line(error)}") from error
        if len(found) != len(expected):
            raise ModelError(f"'{what}' was exported with {len(found)} outputs; it has {len(expected)}")
        for name, a, b in zip((o.name for o in session.get_outputs()), expected, found, strict=True):
            worst = _difference(a.detach().to(torch.float64).numpy(), np.asarray(b))
            if not worst <= TOLERANCE:
                raise ModelError(
                    f"'{what}' was exported, but its output '{shown(name)}' differs by {worst:.2g} of its size",
                    "torch's exporter made a mistake; export it to ONNX by hand",
                )


def _feeds(
    declared: Sequence[TensorSpec], args: tuple[Any, ...], kwargs: dict[str, Any], what: str
) -> dict[str, np.ndarray]:
    values = [*args, *kwargs.values()]
    if len(values) != len(declared):
        names = ", ".join(shown(spec.name) for spec in declared)
        raise ModelError(f"'{what}' reads {len(declared)} inputs ({names}), and --input gives {len(values)}")
    named = {**dict(zip([s.name for s in declared if s.name not in kwargs], args, strict=True)), **kwargs}
    return {name: value.numpy() for name, value in named.items()}


def _declared(spec: TensorSpec, seed: int, batch: int) -> torch.Tensor:
    """Random numbers for an input of a graph whose free axes are not ours to choose."""
    shape = tuple(d if isinstance(d, int) else batch if axis == 0 else 16 for axis, d in enumerate(spec.shape))
    return _example(InputSpec(None, shape, str(spec.dtype), True), seed)


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    found = found.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(expected[finite]).max()), 1e-6)
    return float(np.abs(expected[finite] - found[finite]).max()) / scale
