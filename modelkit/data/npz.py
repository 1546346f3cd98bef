"""Datasets in an npz file: arrays named as the model's inputs, `labels` optional; never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from modelkit.data.arrays import ArraysDataset
from modelkit.data.dataset import Dataset, hash_files
from modelkit.data.npyformat import READ_ERRORS, Array, one_line, stored_array
from modelkit.errors import DataError, UnsafeError
from modelkit.runtime import TensorSpec

_MOST_MEMBERS = 4096
# Deflate reaches 1032:1 at most. Above this on a whole archive of this size it is a bomb, not data.
_BOMB_RATIO = 200
_BOMB_BYTES = 1 << 30


def open_npz(path: Path, specs: Sequence[TensorSpec], *, need_labels: bool, classes: int | None) -> Dataset:
    """Open an npz file as a dataset.

    Args:
        path: The file.
        specs: The model's inputs.
        need_labels: Labels must be there.
        classes: Classes that the model tells apart, where known.

    Raises:
        UnsafeError: It would unpickle, or it is a decompression bomb.
        DataError: It is damaged or does not fit the model.
    """
    return ArraysDataset(
        members(path),
        specs,
        name=path.name,
        format="npz",
        fingerprint=lambda: hash_files([path], path),
        path=path,
        need_labels=need_labels,
        classes=classes,
    )


def members(path: Path) -> dict[str, Array]:
    """The arrays of a file by name, none of them loaded yet; errors as `open_npz`."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except READ_ERRORS as error:
        raise DataError(
            f"{path.name} is a damaged zip: {one_line(error)}",
            hint="it may have been cut off; copy or save it again",
        ) from error
    _refuse_bombs(path, infos)
    names = [info.filename for info in infos]
    if any(name.split("/")[-1] in ("data.pkl", "constants.pkl") for name in names):
        raise DataError(f"{path.name} is a PyTorch checkpoint, not a data set", hint="save the data with numpy.savez")
    if not any(name.endswith(".npy") for name in names):
        raise DataError(
            f"{path.name} is a zip without arrays",
            hint="save the data with numpy.savez, or unpack the folder",
        )
    arrays: dict[str, Array] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        where = f"'{name}' in {path.name}"
        if name in arrays:
            raise DataError(f"{path.name} holds '{name}' twice", hint="save it again with numpy.savez")
        if not info.filename.endswith(".npy"):
            raise DataError(f"{path.name} holds '{info.filename}', which is not an npy array")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{where} is encrypted or packed with a method that numpy does not write",
                hint="save it with numpy.savez or numpy.savez_compressed",
            )

        def opener(member: zipfile.ZipInfo = info) -> IO[bytes]:
            # The zip object may go: the open member keeps the file open.
            with zipfile.ZipFile(path) as archive:
                return archive.open(member)

        arrays[name] = stored_array(opener, info.file_size, where)
    return arrays


def _refuse_bombs(path: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    there = path.stat().st_size
    unpacked = sum(info.file_size for info in infos)
    if len(infos) > _MOST_MEMBERS:
        raise UnsafeError(f"{path.name} holds {len(infos)} entries; a data set has a few arrays")
    if unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * there:
        raise UnsafeError(
            f"{path.name} looks like a decompression bomb: {there} bytes that unpack to {unpacked}",
            hint="if it is real data, save it with numpy.savez (uncompressed)",
        )
    for info in infos:
        lying = info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size
        if lying or info.compress_size > there or info.file_size > 1100 * info.compress_size + 64:
            raise DataError(
                f"'{info.filename}' in {path.name} is damaged: its sizes contradict each other",
                hint="save it again with numpy.savez",
            )
