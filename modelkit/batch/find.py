"""Finds the models below a folder: by content, in a fixed order, without being led out of the folder."""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from modelkit.errors import ResourceError, UsageError
from modelkit.files import Kind, shown, sniff

# What says itself how it is computed.
MODELS = frozenset({Kind.ONNX, Kind.PT2})
# What needs to be told its architecture or its inputs.
WEIGHTS = frozenset({Kind.SAFETENSORS, Kind.TORCH_ZIP, Kind.TORCHSCRIPT, Kind.PICKLE})
# Formats of models that modelkit does not read: said, so that nobody waits for them.
_OTHERS = frozenset({Kind.HDF5, Kind.TFLITE, Kind.GGUF, Kind.ORT})
_NAMED = 3  # files that a note names


@dataclass
class Found:
    """What is below a folder.

    Attributes:
        models: The models' paths relative to the folder, sorted by their text.
        notes: What was left out although someone might expect it.
    """

    models: list[PurePosixPath]
    notes: list[str] = field(default_factory=list)


def find_models(
    folder: Path,
    *,
    match: Sequence[str] = (),
    skip: Sequence[str] = (),
    without: Path | None = None,
    artifacts: bool = False,
    kinds: frozenset[Kind] = MODELS,
) -> Found:
    """Find every model below a folder.

    A model is a file that holds one, whatever its name, or is called ``.onnx``, whatever it holds: a damaged one is
    there to be reported. External data is no model, nor is anything hidden. Links to files inside the folder are
    followed, links to folders are not.

    Args:
        folder: The folder.
        match: Globs, of which one must fit the path below the folder or the file's name; ``*`` also fits slashes.
        skip: Globs of files and folders to leave out.
        without: A folder below it to leave out: where the results go.
        artifacts: Whether models that have a report of modelkit beside them count as models too.
        kinds: Formats that count as models.

    Raises:
        UsageError: There is no model, or a glob fits nothing.
        ResourceError: The folder or one below cannot be read.
    """
    notes, used, sniffed = _Notes(), set[str](), dict[PurePosixPath, Kind]()
    root = folder.resolve()
    hidden = without.resolve() if without is not None else None
    for name in _files(folder, skip, hidden, used, notes):
        path = folder / name
        if not _inside(path, root, notes, name):
            continue
        try:
            kind = sniff(path)
        except ResourceError:  # if it is a model, whoever works on it will say the same
            kind = Kind.UNKNOWN
            notes.add("cannot be read", name)
        if kind in WEIGHTS and kind not in kinds:
            notes.add("weights that need --arch or --input", name)
        elif kind in _OTHERS:
            notes.add("in another format", name)
        elif kind in kinds or name.suffix.lower() == ".onnx":
            sniffed[name] = kind
    data = {name for name, kind in sniffed.items() if _is_external_data(folder, name, kind, sniffed)}
    models = [name for name in sniffed if name not in data]
    if not artifacts:
        made = {name for name in models if _is_artifact(folder / name)}
        models = [name for name in models if name not in made]
        for name in sorted(made):
            notes.add("made by modelkit", name)
    if match:
        fits = {pattern: {name for name in models if _fits(name, pattern)} for pattern in match}
        used |= {pattern for pattern, names in fits.items() if names}
        models = [name for name in models if any(name in names for names in fits.values())]
    idle = [pattern for pattern in [*match, *skip] if pattern not in used]
    if idle:
        flag = "--match" if idle[0] in match else "--skip"
        raise UsageError(f"{flag} {shown(idle[0])} fits nothing below '{shown(folder)}'", "globs: *.onnx, vision/*")
    if not models:
        raise UsageError(f"there is no model below '{shown(folder)}'", _why_none(notes))
    return Found(sorted(models, key=str), notes.lines())


class _Notes:
    """What was left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[PurePosixPath]] = {}

    def add(self, reason: str, name: PurePosixPath) -> None:
        self._names.setdefault(reason, []).append(name)

    def lines(self) -> list[str]:
        found = []
        for reason, names in sorted(self._names.items()):
            first = ", ".join(shown(str(name)) for name in sorted(names)[:_NAMED])
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            found.append(f"left out, {reason}: {first}{more}")
        return found


def _why_none(notes: _Notes) -> str:
    return "; ".join(notes.lines()) or "files that hold ONNX, whatever they are called, or that are called .onnx"


def _files(
    folder: Path, skip: Sequence[str], without: Path | None, used: set[str], notes: _Notes
) -> Iterator[PurePosixPath]:
    """Every file below a folder that is not hidden, skipped or in the folder of the results."""

    def refuse(error: OSError) -> None:
        name = shown(str(error.filename))
        raise ResourceError(f"cannot read the folder '{name}': {error.strerror}", "--skip leaves a folder out")

    def skipped(name: PurePosixPath) -> bool:
        fitting = [pattern for pattern in skip if _fits(name, pattern)]
        used.update(fitting)
        return bool(fitting)

    for top, folders, files in os.walk(folder, onerror=refuse):
        below = PurePosixPath(Path(top).relative_to(folder).as_posix())
        kept = []
        for each in sorted(folders):
            path = Path(top) / each
            if each.startswith(".") or skipped(below / each) or (without is not None and path.resolve() == without):
                continue
            if path.is_symlink():
                notes.add("a link to a folder", below / each)
                continue
            kept.append(each)
        folders[:] = kept
        for each in files:
            name = below / each
            if not each.startswith(".") and not skipped(name):
                yield name


def _inside(path: Path, root: Path, notes: _Notes, name: PurePosixPath) -> bool:
    """Whether a path is a regular file within the folder, links followed."""
    link = path.is_symlink()
    with suppress(OSError, RuntimeError):
        target = path.resolve(strict=True)
        if not target.is_relative_to(root):
            notes.add("a link out of the folder", name)
            return False
        return stat.S_ISREG(target.stat().st_mode)
    if link:
        notes.add("a link that leads nowhere", name)
    return False


def _fits(name: PurePosixPath, pattern: str) -> bool:
    return fnmatchcase(str(name), pattern) or fnmatchcase(name.name, pattern)


def _is_external_data(folder: Path, name: PurePosixPath, kind: Kind, models: dict[PurePosixPath, Kind]) -> bool:
    """Whether a file is the weights of a model in its folder or above.

    Asked only of files that are not plainly models. A model names its data relative to its own folder, and that
    name stands in its bytes as it is.
    """
    if name.suffix.lower() == ".onnx" and kind != Kind.UNKNOWN:
        return False
    for above in name.parents:
        needle = str(name.relative_to(above)).encode("utf-8", "surrogateescape")
        for other, what in models.items():
            if what == Kind.ONNX and other != name and other.parent == above and _holds(folder / other, needle):
                return True
    return False


def _holds(path: Path, needle: bytes) -> bool:
    # An empty file cannot be mapped, and holds nothing.
    with (
        suppress(OSError, ValueError),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.find(needle) >= 0
    return False


def _is_artifact(path: Path) -> bool:
    """Whether a model was made by modelkit: its report lies beside it and names it."""
    report = path.with_name(f"{path.name.removesuffix('.onnx')}.report.json")
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
        return str(found["schema"]).startswith("modelkit.report/") and found["after"]["file"]["name"] == path.name
    except (OSError, ValueError, KeyError, TypeError):
        return False


def mirrored(models: Sequence[PurePosixPath], name_of: Callable[[Path], str]) -> dict[PurePosixPath, PurePosixPath]:
    """Where each model's result goes below the folder of results; no two are the same.

    Args:
        models: Paths relative to the folder of models.
        name_of: The result's file name for a model's path.
    """
    taken: set[PurePosixPath] = set()
    found = {}
    # Of a.onnx and a, which would both become a.int8.onnx, the first keeps its name.
    for model in sorted(models, key=lambda each: (each.suffix != ".onnx", str(each))):
        target, number = model.with_name(name_of(Path(model))), 1
        while target in taken:
            number += 1
            target = model.with_name(name_of(Path(f"{model.stem}-{number}.onnx")))
        taken.add(target)
        found[model] = target
    return {model: found[model] for model in models}


def check_targets(folder: Path, models: Sequence[PurePosixPath], outputs: Sequence[Path]) -> None:
    """Refuse results that would take the place of a model.

    Raises:
        UsageError: One does.
    """
    given = {(folder / model).resolve() for model in models}
    for output in outputs:
        if output.resolve() in given:
            raise UsageError(f"the output '{shown(output)}' is one of the models", "choose another folder with -o")
