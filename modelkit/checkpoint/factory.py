"""Calls the factory that the user named with ``--arch``; naming it is the user's trust in its code."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import UsageError
from modelkit.files import shown

if TYPE_CHECKING:
    from torch import nn

_HINT = "--arch takes package.module:factory, a callable that needs no arguments and returns a torch.nn.Module"


def build(arch: str) -> nn.Module:
    """Import a factory and call it; the current folder is importable, as with ``python -m``.

    Args:
        arch: ``package.module:factory``; the factory may be a class, and ``module:holder.factory`` is allowed.

    Returns:
        What the factory returned, in evaluation mode.

    Raises:
        UsageError: The text has another form, the module cannot be imported, the factory is not there, cannot be
            called, raises, or returns no module. Of what it raises, the message and the last line are told.
    """
    module_name, _, path = arch.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise UsageError(f"--arch '{shown(arch)}' is not package.module:factory", _HINT)
    with current_folder():
        factory = _find(arch, module_name, path)
        if not callable(factory):
            raise UsageError(f"--arch {arch} is a {type(factory).__name__}, which cannot be called", _HINT)
        try:
            module = factory()
        except Exception as error:
            raise UsageError(f"the factory {arch} failed: {_told(error)}", _HINT) from error
    from torch import nn

    if not isinstance(module, nn.Module):
        raise UsageError(f"the factory {arch} returned a {type(module).__name__}, not a torch.nn.Module", _HINT)
    return module.eval()


def _find(arch: str, module_name: str, path: str) -> Any:
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(
                f"--arch {arch}: there is no module '{error.name}' in the current folder or the environment",
                "run modelkit in the folder that holds it, or install it beside modelkit",
            ) from error
        raise UsageError(f"--arch {arch}: importing it failed: {_told(error)}") from error
    except Exception as error:  # a module may raise anything when it is imported
        raise UsageError(f"--arch {arch}: importing it failed: {_told(error)}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            names = sorted(n for n in vars(found) if not n.startswith("_")) if hasattr(found, "__dict__") else []
            raise UsageError(f"--arch {arch}: '{module_name}' has no '{path}'", _near(path, names) or _HINT)
        found = getattr(found, name)
    return found


def _near(name: str, names: list[str]) -> str | None:
    import difflib

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else None


def _told(error: BaseException) -> str:
    """An exception in one line, with the place that raised it."""
    said = " ".join(str(error).split())[:500]
    text = f"{type(error).__name__}{f': {said}' if said else ''}"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{text} ({shown(Path(error.filename).name)}:{error.lineno})"
    own = [f for f in frames if "importlib" not in f.filename and Path(f.filename) != Path(__file__)]
    if not own:
        return text
    return f"{text} ({shown(Path(own[-1].filename).name)}:{own[-1].lineno}: {shown((own[-1].line or '').strip())})"


@contextmanager
def current_folder() -> Iterator[None]:
    """Put the current folder in front of the import path for a while."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
