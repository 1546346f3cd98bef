"""Patterns that choose layers by the names of their weights and nodes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from modelkit.decision import Decision
from modelkit.errors import ModelError, UsageError
from modelkit.graph.layers import WeightUse


def names_of(use: WeightUse) -> list[str]:
    """Names that a pattern may match: the weight's and those of the nodes that read it."""
    return [str(use.value.name), *(str(node.name) for node, _ in use.consumers if node.name)]


def check_patterns(patterns: Sequence[str], names: Iterable[str], option: str) -> None:
    """Refuse patterns that match nothing.

    Args:
        patterns: fnmatch patterns as given by the user.
        names: All names that could match.
        option: What to call the option in the message.

    Raises:
        UsageError: A pattern matches no name; the hint lists near ones.
    """
    known = sorted(set(names))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            near = difflib.get_close_matches(pattern.strip("*"), known, n=3, cutoff=0.3) or known[:3]
            raise UsageError(
                f"{option}: the pattern '{pattern}' matches no weight or layer",
                f"names here are such as {', '.join(near)}; modelkit inspect lists them all",
            )


def chosen(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> str | None:
    """Return None when a thing with these names is to be transformed, or the reason why not."""
    if include and not any(fnmatchcase(name, pattern) for pattern in include for name in names):
        return "not matched by include"
    for pattern in exclude:
        if any(fnmatchcase(name, pattern) for name in names):
            return f"excluded by '{pattern}'"
    return None


def nothing_to_do(verb: str, hint: str, kept: Sequence[Decision]) -> ModelError:
    """Return the error for a model of which nothing was chosen.

    Args:
        verb: What was to be done: "quantize".
        hint: Why weights that are no constants do not qualify.
        kept: What was looked at, with the reasons.
    """
    if not kept:
        return ModelError(f"nothing to {verb}: the model has no constant float weights", hint)
    reasons = sorted({decision.reason for decision in kept})
    return ModelError(
        f"nothing to {verb}: none of the {len(kept)} constant tensors qualifies ({'; '.join(reasons[:3])})",
        "modelkit inspect lists every tensor",
    )
