"""Finds the state dict in what was saved, and lines its keys up with those of a module."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelkit.errors import ModelError
from modelkit.files import shown

# Where training scripts keep a state dict, most telling first.
_NAMES = (
    *("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params"),
    *("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema", "params_ema", "student", "generator"),
)
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_WRAPPER = "_orig_mod."
_DEEPEST = 4
_SHOWN = 12


@dataclass(frozen=True)
class Place:
    """Where the state dict is in what was saved.

    Attributes:
        path: Keys that lead there; empty where it is the whole file.
        others: Dotted paths of further dictionaries of tensors, which stay untouched.
    """

    path: tuple[str, ...]
    others: list[str] = field(default_factory=list)

    def of(self, tree: Any) -> Any:
        """Follow the path."""
        for key in self.path:
            tree = tree[key]
        return tree


def find(tree: Any, is_tensor: Any, what: str) -> Place:
    """Find the dictionary that maps names to tensors.

    Args:
        tree: What was saved.
        is_tensor: The class of tensors in it.
        what: The file's name, for errors.

    Raises:
        ModelError: There is none, or there are several and none has a name that tells.
    """
    found = list(_candidates(tree, is_tensor, ()))
    if not found:
        raise ModelError(
            f"'{what}' holds no state dict: no dictionary of named tensors is in it",
            "save it with torch.save(model.state_dict(), ...) or as safetensors",
        )
    ranked = sorted(found, key=lambda path: (len(path) > 0, _rank(path)))
    if len(ranked) > 1 and _rank(ranked[0]) == _rank(ranked[1]) and ranked[0]:
        names = ", ".join(f"'{shown('.'.join(path))[:60]}'" for path in ranked[:6])
        raise ModelError(
            f"'{what}' holds several dictionaries of tensors ({names}), and no name tells which is the model",
            "save the state dict of the one that is meant by itself",
        )
    return Place(ranked[0], [".".join(path) for path in ranked[1:]])


def _rank(path: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(_NAMES.index(key) if key in _NAMES else len(_NAMES) for key in path)


def _candidates(tree: Any, is_tensor: Any, path: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    if not isinstance(tree, dict) or len(path) > _DEEPEST:
        return
    items = [(key, value) for key, value in dict.items(tree) if isinstance(key, str)]
    if any(isinstance(value, is_tensor) for _, value in items):
        yield path
        return
    for key, value in items:
        if not key.startswith("optim"):
            yield from _candidates(value, is_tensor, (*path, key))


def align(keys: Sequence[str], wanted: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Map the keys of a file to those of a module, by taking off prefixes that wrappers put on.

    Args:
        keys: Keys in the file.
        wanted: Keys of the module.

    Returns:
        For each key in the file the key without the prefix under which most fit.
    """
    best: dict[str, str] = {key: key for key in keys}
    score = sum(key in wanted for key in keys)
    for length in (1, 2):
        for prefixes in itertools.product(_PREFIXES, repeat=length):
            prefix = "".join(prefixes)
            if not any(key.startswith(prefix) for key in keys):
                continue
            mapped = {key: key.removeprefix(prefix) for key in keys}
            fitting = sum(key in wanted for key in mapped.values())
            if fitting > score and len(set(mapped.values())) == len(keys):
                best, score = mapped, fitting
    # torch.compile may have wrapped a part in the middle.
    inner = {key: name.replace(_WRAPPER, "") for key, name in best.items()}
    if sum(name in wanted for name in inner.values()) > score and len(set(inner.values())) == len(keys):
        best = inner
    return best


def check_fit(
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    tied: Iterable[str],
    arch: str,
    what: str,
) -> None:
    """Compare names and shapes.

    Args:
        found: Shapes in the file by the module's keys.
        wanted: Shapes in the module.
        tied: Keys of the module that may be missing, because another key holds the same tensor.
        arch: The factory, for the error.
        what: The file's name, for the error.

    Raises:
        ModelError: Keys are missing, unexpected or have another shape; lists all three kinds at once.
    """
    missing = [key for key in wanted if key not in found and key not in set(tied)]
    unexpected = [key for key in found if key not in wanted]
    shaped = [
        f"{key} ({_shape(found[key])} in the file, {_shape(wanted[key])} in the module)"
        for key in wanted
        if key in found and found[key] != wanted[key]
    ]
    parts = [
        f"{len(names)} {kind}: {shown(', '.join(names[:_SHOWN]))}{', …' if len(names) > _SHOWN else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shaped))
        if names
    ]
    if parts:
        raise ModelError(
            f"the keys of '{what}' do not fit {arch}: {'; '.join(parts)}",
            "name the factory that made this file, with the same sizes",
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape) or "scalar"
