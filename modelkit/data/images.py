"""Datasets of image files: a folder for each class, or a flat folder with or without `labels.csv`.

Classes are the subfolders sorted by name, as torchvision and Keras number them. A `labels.csv` with the
columns `file,label` names each image's label instead. Images are decoded as batches ask for them.
"""

from __future__ import annotations

import csv
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.data.check import Problems, check_shape, describe_spec
from modelkit.data.dataset import Dataset, Rows, hash_files
from modelkit.data.labels import check_labels
from modelkit.data.npyformat import one_line
from modelkit.data.paths import entries
from modelkit.data.plan import plan_batches
from modelkit.data.preprocess import Preprocess
from modelkit.errors import DataError, UnsafeError
from modelkit.runtime import TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

LABELS_FILE = "labels.csv"
# Formats that pillow decodes by itself; others start external programs (EPS) or are rarely data.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MOST_PIXELS = 89_478_485  # pillow's own limit: 256 MB of RGB
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class ImageFolder(Dataset):
    """Images in a folder.

    Args:
        folder: The folder.
        specs: The model's inputs; exactly one, of rank 4.
        preprocess: From image to input; guessed from the input where None.
        need_labels: Labels must be there.
        classes: Classes that the model tells apart, where known.

    Raises:
        UnsafeError: A link leaves the folder, or an image is a decompression bomb.
        DataError: It does not fit the model; all mismatches at once.
    """

    format = "image folder"

    def __init__(
        self,
        folder: Path,
        specs: Sequence[TensorSpec],
        *,
        preprocess: Preprocess | None,
        need_labels: bool,
        classes: int | None,
    ) -> None:
        self.name, self.path = folder.name, folder
        self.plan = plan_batches(specs)
        problems = Problems(folder.name)
        if len(specs) != 1 or len(specs[0].shape) != 4 or self.plan.axes[specs[0].name] != 0:
            wants = ", ".join(f"{spec.name} {describe_spec(spec)}" for spec in specs)
            problems.add(f"images feed one input of 4 dimensions, the model takes {wants}")
            problems.raise_any("save the inputs as arrays with numpy.savez")
        self._spec = specs[0]
        self._preprocess = preprocess or Preprocess.for_input(specs[0])
        self._files, numbers = self._list(folder, problems)
        self.count = len(self._files)
        self._check_dtype(problems)
        self._check_images(problems)
        if numbers is not None:
            self.labels = check_labels(np.array(numbers, np.int64), self.count, classes, problems)
        elif need_labels:
            problems.add(f"the images have no labels: make a folder for each class or add {LABELS_FILE} (file,label)")
        if preprocess is None:
            steps = self._preprocess
            self.notes += (
                f"no preprocess block was given: {steps.color} in {steps.layout}, pixels times {steps.scale:.4g}",
            )
        problems.raise_any(
            f"input {self._spec.name} is {describe_spec(self._spec)}; the preprocess block makes images fit"
        )

    def _list(self, folder: Path, problems: Problems) -> tuple[list[Path], list[int] | None]:
        """Return the images in order, and their class numbers where there are any."""
        top = [entry for entry in entries(folder) if entry.name != LABELS_FILE]
        classes = [entry for entry in top if entry.is_dir()]
        flat = [entry for entry in top if not entry.is_dir()]
        files, numbers = list(flat), [0] * len(flat)
        for number, sub in enumerate(classes):
            inside = entries(sub, folder)
            for deeper in (entry for entry in inside if entry.is_dir()):
                problems.add(f"'{sub.name}/{deeper.name}' is a folder within a class; images belong one level deep")
            images = [entry for entry in inside if not entry.is_dir()]
            files += images
            numbers += [number] * len(images)
        if not files:
            raise DataError(f"{folder.name} holds no images", hint="a folder for each class, with the images in it")
        if (folder / LABELS_FILE).exists():
            return files, _listed_labels(folder, files, problems)
        if flat and classes:
            problems.add(f"'{flat[0].name}' lies beside the class folders; move it into one")
        names = [sub.name for sub in classes]
        if names and all(n.isdecimal() for n in names) and sorted(names, key=int) != names:
            self.notes = (f"classes are numbered by sorted folder name, so '{names[1]}' is class 1",)
        return files, numbers if classes else None

    def _check_dtype(self, problems: Problems) -> None:
        kind = self._spec.dtype
        if kind.kind == "f" or kind.name == "bfloat16" or (kind == np.uint8 and self._preprocess.keeps_bytes):
            return
        if kind == np.uint8:
            problems.add(f"input '{self._spec.name}' is uint8, so preprocess takes scale: 1 and neither mean nor std")
        else:
            problems.add(f"input '{self._spec.name}' is {kind.name}; images feed float and uint8 inputs")

    def _check_images(self, problems: Problems) -> None:
        """Look at each image's header: format, depth, and the size it ends with."""
        sizes: dict[tuple[int, int], Path] = {}
        for file in self._files:
            try:
                with _opened(file, self._label(file)) as image:
                    if image.mode in _DEEP_MODES:
                        problems.add(f"'{self._label(file)}' has more than 8 bits a channel")
                    sizes.setdefault(self._preprocess.size_of(image.height, image.width), file)
            except DataError as error:
                named = self._label(file) in error.message
                problems.add(error.message if named else f"'{self._label(file)}': {error.message}")
        channels = self._preprocess.channels
        for (height, width), file in sizes.items():
            shape = (
                [self.count, channels, height, width]
                if self._preprocess.layout == "nchw"
                else [self.count, height, width, channels]
            )
            before = len(problems.found)
            check_shape(self._spec, shape, 0, problems)
            if len(problems.found) > before:
                problems.found[-1] += f" for '{self._label(file)}'; see preprocess: resize, crop, layout, color"
                return
        if len(sizes) > 1:
            (a, first), (b, second) = list(sizes.items())[:2]
            problems.add(
                f"images have different sizes ('{self._label(first)}' {a[0]}x{a[1]}, '{self._label(second)}' "
                f"{b[0]}x{b[1]}); set preprocess: resize or crop to [height, width]"
            )

    def _label(self, file: Path) -> str:
        return file.relative_to(self.path or file.parent).as_posix()

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Decode images as they are asked for (see `Dataset.rows`)."""
        order = range(self.count) if indices is None else [int(i) for i in indices]
        for start in range(0, len(order), size):
            files = [self._files[i] for i in order[start : start + size]]
            block = [self._decode(file) for file in files]
            for file, array in zip(files, block, strict=True):
                if array.shape != block[0].shape:
                    raise DataError(f"'{self._label(file)}' changed its size while the images were read")
            yield Rows({self._spec.name: np.stack(block)}, {}, len(block))

    def _decode(self, file: Path) -> np.ndarray:
        with _opened(file, self._label(file)) as image:
            return self._preprocess.apply(image, self._spec.dtype)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the names and bytes of all files."""
        folder = self.path or Path()
        listed = [folder / LABELS_FILE] if (folder / LABELS_FILE).exists() else []
        return hash_files([*self._files, *listed], folder)


@contextmanager
def _opened(file: Path, label: str) -> Iterator[Image]:
    """Open an image without decoding it yet; what goes wrong inside becomes one error that names it."""
    from PIL import Image as PillowImage
    from PIL import UnidentifiedImageError

    bomb = UnsafeError(
        f"'{label}' looks like a decompression bomb: more than {_MOST_PIXELS} pixels",
        hint="make the image smaller",
    )
    if not file.is_file():
        raise DataError(f"'{label}' is not a plain file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(file, formats=_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise bomb
                yield image
    except PillowImage.DecompressionBombError as error:
        raise bomb from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"'{label}' is not an image ({', '.join(_FORMATS)})", hint="keep only images in the folder"
        ) from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        EOFError,
        struct.error,
        zlib.error,
    ) as error:
        raise DataError(
            f"'{label}' cannot be decoded: {one_line(error)}",
            hint="the file is damaged; copy it again or remove it",
        ) from error


def _listed_labels(folder: Path, files: list[Path], problems: Problems) -> list[int]:
    """Read `labels.csv` and bring its labels to the files' order."""
    known = {file.relative_to(folder).as_posix(): i for i, file in enumerate(files)}
    labels: dict[str, int] = {}
    try:
        with (folder / LABELS_FILE).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                problems.add(
                    f"{LABELS_FILE} needs the columns file,label; it has {','.join(reader.fieldnames or ())}"
                )
                return [0] * len(files)
            for row in reader:
                name, text = row["file"] or "", row["label"] or ""
                where = f"{LABELS_FILE}:{reader.line_num}"
                if name not in known:
                    problems.add(f"{where}: there is no image '{name}' in {folder.name}")
                elif name in labels:
                    problems.add(f"{where}: '{name}' is there twice")
                elif not text.strip().isdecimal() or len(text) > 18:
                    problems.add(f"{where}: label '{text}' is not a whole number from 0")
                else:
                    labels[name] = int(text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.add(f"{LABELS_FILE} cannot be read: {one_line(error)}")
        return [0] * len(files)
    unlisted = [name for name in known if name not in labels]
    if unlisted and not problems.found:
        problems.add(f"{LABELS_FILE} has no label for {len(unlisted)} images, such as '{unlisted[0]}'")
    return [labels.get(name, 0) for name in known]
