"""Opens a data set of any format, told apart by content, and checks it against a model's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.data.dataset import Dataset
from modelkit.data.paths import entries
from modelkit.errors import DataError, ResourceError, UnsafeError
from modelkit.runtime import TensorSpec

if TYPE_CHECKING:
    from modelkit.data.preprocess import Preprocess

_FORMATS = "npz, csv, parquet, or a folder of npy files, images or ONNX test sets"
_HEAD = 4096
# First bytes of files that are often given by mistake: what they are, and what to do.
_OTHER = (
    (
        b"\x93NUMPY",
        "a single npy array without a name",
        "put it into a folder as <input name>.npy, or use numpy.savez",
    ),
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself", "run: git lfs pull"),
    (b"\x89PNG", "a single image", "give the folder of images"),
    (b"\xff\xd8\xff", "a single image", "give the folder of images"),
    (b"GIF8", "a single image", "give the folder of images"),
    (b"BM", "a single image", "give the folder of images"),
    (b"RIFF", "a single image or sound", "give the folder of images"),
    (b"\x1f\x8b", "gzip-compressed", "unpack it first"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
    (b"\x89HDF", "an HDF5 file", "save the arrays with numpy.savez"),
)


def open_dataset(
    path: Path,
    specs: Sequence[TensorSpec],
    *,
    preprocess: Preprocess | None = None,
    need_labels: bool = False,
    classes: int | None = None,
) -> Dataset:
    """Open a data set and check it against a model's inputs.

    All of it is read once: each value is known to be finite and in range when this returns, except that
    images are only decoded when they are asked for.

    Args:
        path: An npz, csv or parquet file, or a folder of npy files, images or ONNX test sets.
        specs: The model's inputs, in the model's order.
        preprocess: From image to input, for image folders; guessed from the input where None.
        need_labels: Labels must be there.
        classes: How many classes the model tells apart; labels must be integers below. None for a regression.

    Raises:
        DataError: It is missing, damaged, of another format, or does not fit the model; all mismatches at
            once.
        UnsafeError: It would run code, leave its folder or unpack to something absurd.
        ResourceError: It may not be read.
    """
    path = Path(path)
    if not specs:
        raise DataError("the model has no inputs, so there is nothing to feed it")
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist", hint=f"give {_FORMATS}")
        if path.is_dir():
            return _open_folder(path, specs, preprocess, need_labels, classes)
        if not path.is_file():
            raise DataError(f"{path} is neither a file nor a folder", hint=f"give {_FORMATS}")
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except PermissionError as error:
        raise ResourceError(f"may not read {error.filename or path}", hint="check its permissions") from error
    if preprocess is not None:
        raise DataError(
            f"{path.name} is no image folder, so preprocess has nothing to do",
            hint="remove the preprocess block, or give a folder of images",
        )
    kind = _kind(path, head)
    if kind == "npz":
        from modelkit.data.npz import open_npz

        return open_npz(path, specs, need_labels=need_labels, classes=classes)
    from modelkit.data.tables import TableDataset

    return TableDataset(path, specs, format=kind, need_labels=need_labels, classes=classes)


def _open_folder(
    path: Path,
    specs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    need_labels: bool,
    classes: int | None,
) -> Dataset:
    from modelkit.data.testsets import TestSets, find_sets

    # A name such as "." says nothing in a report.
    path = path if path.name else path.resolve()
    inside = entries(path)
    images = False
    dataset: Dataset
    if find_sets(path):
        dataset = TestSets(path, specs, need_labels=need_labels)
    elif any(entry.suffix == ".npy" for entry in inside):
        from modelkit.data.npyfolder import open_npy_folder

        dataset = open_npy_folder(path, specs, need_labels=need_labels, classes=classes)
    elif not inside:
        raise DataError(f"the folder {path} is empty", hint=f"give {_FORMATS}")
    else:
        from modelkit.data.images import ImageFolder

        images = True
        dataset = ImageFolder(path, specs, preprocess=preprocess, need_labels=need_labels, classes=classes)
    if preprocess is not None and not images:
        raise DataError(
            f"{path.name} is no image folder, so preprocess has nothing to do",
            hint="remove the preprocess block",
        )
    return dataset


def _kind(path: Path, head: bytes) -> str:
    """Return "npz", "parquet" or "csv" by the first bytes.

    Raises:
        DataError: It is something else.
        UnsafeError: It is a pickle.
    """
    if not head:
        raise DataError(f"{path.name} is empty", hint=f"give {_FORMATS}")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "npz"
    if head[:4] == b"PAR1":
        return "parquet"
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsafeError(
            f"{path.name} is a pickle, which runs code when it is loaded",
            hint="save the arrays with numpy.savez",
        )
    for start, what, hint in _OTHER:
        if head.startswith(start):
            raise DataError(f"{path.name} is {what}", hint=hint)
    if not _is_text(head):
        raise DataError(f"{path.name} is in no format that is known here", hint=f"give {_FORMATS}")
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first in (b"{", b"[", b"<"):
        what = "HTML or XML" if first == b"<" else "JSON"
        raise DataError(f"{path.name} is {what}, not a table", hint=f"give {_FORMATS}")
    return "csv"


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may have been cut in two.
        return len(head) == _HEAD and error.start >= _HEAD - 3
    return True
