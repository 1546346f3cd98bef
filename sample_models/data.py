"""The three data sets of the sample models, split once and for all, and the writer of their npz files."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import re
import struct
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FASHION_DIR = Path("/usr/share/datasets/fashion-mnist")
DJANGO_VERSION = "5.2.19"
LANGUAGES = (
    *("be", "bg", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hu"),
    *("id", "it", "lt", "nl", "pl", "pt", "ro", "ru", "sv", "tr", "uk"),
)
GARMENTS = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
TOKENS = 64
"""Length of a token row; a row shorter than this is filled with `PAD`."""
PAD = 0
VOCABULARY = 257
"""One id for each UTF-8 byte (byte + 1) and one for padding."""

_NOISE = re.compile(r"%\([^)]*\)[a-z]|%[a-z]|\{[^}]*\}|<[^>]*>|&[a-z]+;|https?://\S+")


@dataclass(frozen=True)
class Split:
    """Model inputs and their labels.

    Attributes:
        x: Inputs, first axis the samples.
        y: int64 class numbers, one a sample.
    """

    x: np.ndarray
    y: np.ndarray

    def take(self, count: int, seed: int) -> Split:
        """`count` samples (all, if there are fewer) drawn without replacement, in their old order."""
        if count >= len(self.y):
            return self
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.y))[:count])
        return Split(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Data:
    """A data set with its two splits, which share no sample."""

    train: Split
    test: Split
    classes: tuple[str, ...]


def digits() -> Data:
    """Scikit-learn's 1797 digits, 8x8, as float32 rows of 64 in 0..1; a stratified 450 are the test split.

    Raises:
        SystemExit: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise SystemExit("error: scikit-learn is not installed\nhint: pip install -e '.[samples]'")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    x, y = (raw.data / 16).astype(np.float32), raw.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=450, random_state=0, stratify=y)
    return Data(Split(x_train, y_train), Split(x_test, y_test), tuple("0123456789"))


def fashion() -> Data:
    """Fashion-MNIST: 60 000 + 10 000 float32 images, 1x28x28, in 0..1.

    Raises:
        SystemExit: Debian's package dataset-fashion-mnist is not installed.
    """
    if not FASHION_DIR.is_dir():
        raise SystemExit(
            f"error: {FASHION_DIR} is missing\nhint: apt-get install dataset-fashion-mnist (Debian, Ubuntu)"
        )
    splits = []
    for stem in ("train", "t10k"):
        with gzip.open(FASHION_DIR / f"{stem}-images-idx3-ubyte.gz") as file:
            count, height, width = struct.unpack(">4I", file.read(16))[1:]
            pixels = np.frombuffer(file.read(), np.uint8).reshape(count, 1, height, width)
        with gzip.open(FASHION_DIR / f"{stem}-labels-idx1-ubyte.gz") as file:
            file.read(8)
            labels = np.frombuffer(file.read(), np.uint8).astype(np.int64)
        splits.append((pixels, labels))
    train, test = (Split(p.astype(np.float32) / 255, y) for p, y in splits)
    return Data(train, test, GARMENTS)


def padded(split: Split) -> Split:
    """Fashion-MNIST as 3x32x32: two black pixels round the image, the grey channel three times."""
    x = np.pad(split.x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return Split(np.repeat(x, 3, axis=1), split.y)


def enlarged(split: Split, size: int) -> Split:
    """Fashion-MNIST as 3 x `size` x `size` by bilinear interpolation, in steps of 1/255 like a photograph."""
    position = (np.arange(size) + 0.5) * split.x.shape[-1] / size - 0.5
    low = np.clip(np.floor(position), 0, split.x.shape[-1] - 1).astype(int)
    high = np.minimum(low + 1, split.x.shape[-1] - 1)
    weight = np.clip(position - low, 0, 1).astype(np.float32)
    x = split.x[..., low] * (1 - weight) + split.x[..., high] * weight
    x = x[..., low, :] * (1 - weight[:, None]) + x[..., high, :] * weight[:, None]
    return Split(np.repeat((np.round(x * 255) / 255).astype(np.float32), 3, axis=1), split.y)


def tokens(text: str) -> np.ndarray:
    """A text as int64 ids: UTF-8 bytes plus one, cut at a whole character to `TOKENS`, filled with `PAD`."""
    raw = text.encode()[:TOKENS].decode(errors="ignore").encode()
    row = np.full(TOKENS, PAD, np.int64)
    row[: len(raw)] = np.frombuffer(raw, np.uint8).astype(np.int64) + 1
    return row


@dataclass(frozen=True)
class Texts:
    """Raw texts with the number of their language in `LANGUAGES`; training cuts its own windows."""

    texts: list[str]
    y: np.ndarray

    def windows(self, seed: int) -> Split:
        """One row a text, different in each epoch.

        Most texts are followed by others of their language and cut at a random word, some lose their
        capitals, and one byte in twenty is another: without that a small net learns the texts by heart.
        """
        generator = np.random.default_rng(seed)
        members = [np.flatnonzero(self.y == label) for label in range(len(LANGUAGES))]
        rows = []
        for text, label in zip(self.texts, self.y, strict=True):
            if generator.random() < 0.7:
                others = [self.texts[i] for i in generator.choice(members[label], 3)]
                text = " ".join([text, *others])
                starts = [0] + [i + 1 for i, char in enumerate(text) if char == " "]
                spare = len(text.encode()) - TOKENS
                starts = [i for i in starts if len(text[:i].encode()) <= spare] or [0]
                text = text[starts[generator.integers(len(starts))] :]
            rows.append(tokens(text.lower() if generator.random() < 0.3 else text))
        x = np.stack(rows)
        noisy = (generator.random(x.shape) < 0.05) & (x != PAD)
        x[noisy] = generator.permutation(x[noisy])
        return Split(x, self.y)


def languages() -> tuple[Data, Texts]:
    """Django's translations, with the `LANGUAGES` as classes, and the uncut texts of the train split.

    A message belongs to the same split in all languages, so the test asks about messages that training has
    not seen in any. Texts that two languages share, placeholders and markup are left out.

    Raises:
        SystemExit: Django is missing or is another version than the one whose texts were split.
    """
    spec = importlib.util.find_spec("django")
    if spec is None or spec.origin is None:
        raise SystemExit(f"error: Django is not installed\nhint: pip install django=={DJANGO_VERSION}")
    root = Path(spec.origin).parent
    import django

    if django.__version__ != DJANGO_VERSION:
        raise SystemExit(
            f"error: the texts of Django {DJANGO_VERSION} are needed, found version {django.__version__}\n"
            f"hint: pip install django=={DJANGO_VERSION}"
        )
    owners: dict[str, set[str]] = defaultdict(set)
    places: dict[str, set[bool]] = defaultdict(set)
    for language in LANGUAGES:
        for path in sorted(root.rglob(f"locale/{language}/LC_MESSAGES/*.mo")):
            for message, text in _messages(path):
                owners[text].add(language)
                places[text].add(hashlib.sha256(message.encode()).digest()[0] < 56)
    kept = sorted(text for text in owners if len(owners[text]) == 1 and len(places[text]) == 1)
    cut: dict[bytes, int] = defaultdict(int)
    for text in kept:
        cut[tokens(text).tobytes()] += 1
    kept = [text for text in kept if cut[tokens(text).tobytes()] == 1]
    labels = np.array([LANGUAGES.index(next(iter(owners[text]))) for text in kept], np.int64)
    for_test = np.array([True in places[text] for text in kept])
    rows = np.stack([tokens(text) for text in kept])
    order = np.random.default_rng(0).permutation(len(kept))
    splits = [Split(rows[order][keep[order]], labels[order][keep[order]]) for keep in (~for_test, for_test)]
    texts = Texts([kept[i] for i in order if not for_test[i]], splits[0].y)
    return Data(splits[0], splits[1], LANGUAGES), texts


def _messages(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of message and cleaned translation of a .mo file (GNU gettext's layout), plurals one by one."""
    raw = path.read_bytes()
    count, sources, targets = struct.unpack_from("<3I", raw, 8)
    for i in range(count):
        length, start = struct.unpack_from("<2I", raw, sources + 8 * i)
        message = raw[start : start + length].decode()
        length, start = struct.unpack_from("<2I", raw, targets + 8 * i)
        for text in raw[start : start + length].decode().split("\0"):
            text = " ".join(_NOISE.sub(" ", text).split())
            if message and sum(char.isalpha() for char in text) >= 20:
                yield message, text


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz whose bytes depend on the arrays alone (numpy's own writer stores the time of day)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)
