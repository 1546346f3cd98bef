"""Datasets in a folder of npy files: `<input>.npy` for each input of the model and `labels.npy`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from modelkit.data.arrays import ArraysDataset
from modelkit.data.dataset import Dataset, hash_files
from modelkit.data.npyformat import Array, stored_array
from modelkit.data.paths import entries
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec


def file_name(input_name: str) -> str:
    """Return the name of an input's file: signs that file systems refuse become ``_``."""
    return re.sub(r"[^\w.\-]", "_", input_name) + ".npy"


def _opener(file: Path) -> Callable[[], IO[bytes]]:
    return lambda: file.open("rb")


def open_npy_folder(folder: Path, specs: Sequence[TensorSpec], *, need_labels: bool, classes: int | None) -> Dataset:
    """Open a folder of npy files as a dataset.

    Args:
        folder: The folder.
        specs: The model's inputs.
        need_labels: Labels must be there.
        classes: Classes that the model tells apart, where known.

    Raises:
        UnsafeError: A file would unpickle, or is a link that leaves the folder.
        DataError: A file is damaged or does not fit the model.
    """
    inputs = {file_name(spec.name): spec.name for spec in specs}
    files = [file for file in entries(folder) if file.is_file()]
    other = [file.name for file in files if file.suffix != ".npy"]
    if other:
        raise DataError(f"{folder.name} holds '{other[0]}' beside npy arrays", hint="keep only the data set in it")
    arrays: dict[str, Array] = {
        inputs.get(file.name, file.stem): stored_array(
            _opener(file), file.stat().st_size, f"{folder.name}/{file.name}"
        )
        for file in files
    }
    return ArraysDataset(
        arrays,
        specs,
        name=folder.name,
        format="npy folder",
        fingerprint=lambda: hash_files(files, folder),
        path=folder,
        need_labels=need_labels,
        classes=classes,
    )
