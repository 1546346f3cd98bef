"""Opens any model file: an ONNX file is passed on, a checkpoint becomes an ONNX file in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.checkpoint.loading import NO_INPUT, InputSpec, Loading, parse_inputs
from modelkit.checkpoint.source import Source
from modelkit.errors import ModelError, UnsafeError, UsageError
from modelkit.files import Kind, require_file, shown, sniff
from modelkit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

CHECKPOINTS = (Kind.SAFETENSORS, Kind.TORCH_ZIP, Kind.TORCHSCRIPT, Kind.PT2, Kind.PICKLE)
_ARCH = "--arch package.module:factory names what builds the module, --input 1x3x32x32:float32 what it is fed"


def is_checkpoint(path: Path) -> bool:
    """Whether a file is of a kind that ``open_source`` turns into ONNX.

    Raises:
        UsageError: There is no such file.
    """
    return sniff(require_file(path)) in CHECKPOINTS


@contextmanager
def open_source(path: Path, loading: Loading = Loading(), progress: Progress = silent) -> Iterator[Source]:  # noqa: B008
    """Turn any model file into an ONNX file for as long as the block lasts.

    Content decides what the file is. Anything that is no checkpoint is passed on as it is, so that reading it as
    ONNX says what is wrong with it; torch is then not imported.

    Args:
        path: The file.
        loading: Architecture, inputs and trust.
        progress: Told what is being done.

    Yields:
        The source; its ``onnx`` is gone after the block where it was made here.

    Raises:
        UsageError: ``--arch`` or ``--input`` is wrong, missing, or given for an ONNX file.
        ModelError: The file is damaged, does not fit the module, or cannot be exported.
        UnsafeError: It could run code or take absurd memory, and ``--trust`` was not given or does not help.
    """
    path = Path(path)
    require_file(path)
    kind = sniff(path)
    if kind not in CHECKPOINTS:
        for flag, given in (("--arch", loading.arch), ("--input", loading.inputs)):
            if given:
                raise UsageError(f"{flag} is for checkpoints; '{shown(path.name)}' is none", "leave it out")
        yield Source(path, path)
        return
    specs = parse_inputs(loading.inputs)
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        progress("reading the checkpoint", 0, 1)
        yield _open(path, kind, loading, specs, Path(folder), progress)


def _open(
    path: Path, kind: Kind, loading: Loading, specs: list[InputSpec], folder: Path, progress: Progress
) -> Source:
    onnx = folder / f"{path.stem}.onnx"
    if kind is Kind.PT2:
        return _open_program(path, loading, onnx)
    if kind is Kind.TORCHSCRIPT:
        return _open_script(path, loading, specs, onnx)
    return _open_state(path, kind, loading, specs, onnx, progress)


def _open_state(
    path: Path, kind: Kind, loading: Loading, specs: list[InputSpec], onnx: Path, progress: Progress
) -> Source:
    from modelkit.checkpoint import container, torchfile
    from modelkit.checkpoint.unpickle import Opaque

    name = shown(path.name)
    if kind is not Kind.SAFETENSORS:
        found = torchfile.read(path, kind)
        if isinstance(found.tree, Opaque) or (found.opaque and not loading.trust):
            return _open_pickled(found, loading, specs, onnx)
    held = container.read(path, kind, trust=loading.trust)
    if loading.arch is None:
        raise UsageError(
            f"'{name}' holds weights and no architecture: there is no graph to run",
            f"{_ARCH}; modelkit inspect lists the weights without",
        )
    net, notes = _built(held, loading, specs)
    from modelkit.checkpoint.export import export_module

    progress("exporting to ONNX", 0, 1)
    held.links = export_module(net, specs, onnx, name)
    return Source(path, onnx, held.kind, [*notes, *_trusted(loading, held.ran_code)], held)


def _built(held: Any, loading: Loading, specs: list[InputSpec]) -> tuple[nn.Module, list[str]]:
    from modelkit.checkpoint import factory

    assert loading.arch is not None
    if not specs:
        raise UsageError(f"--input is missing: what shape does '{shown(loading.arch)}' take?", NO_INPUT)
    net = factory.build(loading.arch)
    held.load_into(net, loading.arch)
    return net, [f"the architecture is {loading.arch}, code that was named with --arch", *held.notes]


def _open_pickled(found: Any, loading: Loading, specs: list[InputSpec], onnx: Path) -> Source:
    """A file with more than tensors: a whole module where it is trusted."""
    from modelkit.checkpoint import factory, torchfile
    from modelkit.checkpoint.export import export_module

    name = shown(found.path.name)
    if not loading.trust:
        raise UnsafeError(torchfile.refusal(found), torchfile.TRUST)
    if loading.arch:
        raise UsageError(f"--arch is for state dicts; '{name}' is a whole pickled object", "leave it out")
    from torch import nn

    with factory.current_folder():
        net = torchfile.load(found, trust=True)
    if not isinstance(net, nn.Module):
        raise ModelError(f"'{name}' holds a {type(net).__name__}, not a torch.nn.Module")
    if not specs:
        raise UsageError(f"--input is missing: what shape does '{name}' take?", NO_INPUT)
    export_module(net.eval(), specs, onnx, name)
    return Source(found.path, onnx, "pickled module", _trusted(loading, True))


def _open_script(path: Path, loading: Loading, specs: list[InputSpec], onnx: Path) -> Source:
    from modelkit.checkpoint import archive
    from modelkit.checkpoint.export import export_script
    from modelkit.checkpoint.torchfile import TRUST

    name = shown(path.name)
    archive.members(path, compressed=True)
    if not loading.trust:
        raise UnsafeError(
            f"'{name}' is TorchScript: a program that runs when it is loaded",
            TRUST,
        )
    if loading.arch:
        raise UsageError(f"--arch is for state dicts; '{name}' is TorchScript", "leave it out")
    if not specs:
        raise UsageError(f"--input is missing: what shape does '{name}' take?", NO_INPUT)
    import torch

    try:
        net = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # torch raises RuntimeError for nearly everything
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"'{name}' cannot be loaded as TorchScript: {shown(said)}") from error
    export_script(net, specs, onnx, name)
    return Source(path, onnx, "TorchScript", _trusted(loading, True))


def _open_program(path: Path, loading: Loading, onnx: Path) -> Source:
    from modelkit.checkpoint import pt2
    from modelkit.checkpoint.export import export_program

    name = shown(path.name)
    for flag, given in (("--arch", loading.arch), ("--input", loading.inputs)):
        if given:
            raise UsageError(f"'{name}' is an ExportedProgram: it brings its own graph", f"leave out {flag}")
    program, needed = pt2.load(path, trust=loading.trust)
    export_program(program, onnx, name)
    return Source(path, onnx, "ExportedProgram", _trusted(loading, needed))


def _trusted(loading: Loading, used: bool) -> list[str]:
    return ["--trust was given: the file could run code while it was loaded"] if loading.trust and used else []
