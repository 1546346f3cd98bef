"""What another language cannot say, and text that no file can hold."""

from __future__ import annotations

from collections.abc import Iterator

from modelkit.errors import UsageError
from modelkit.rules.conditions import Compare, In, atoms
from modelkit.rules.model import RuleSet


class ExportError(UsageError):
    """A rule set has something that the target language cannot say exactly (exit code 2).

    Args:
        target: Name of the language.
        reason: What it is, and why.
    """

    def __init__(self, target: str, reason: str) -> None:
        others = "python and json hold every rule set"
        super().__init__(f"this rule set cannot be written as {target}: {reason}", others)


def texts(rules: RuleSet) -> Iterator[str]:
    """Every text of a rule set that a person chose."""
    yield from (rules.name, rules.description)
    for column in rules.columns:
        yield from (column.name, column.unit, column.description, *column.values)
    for rule in rules.rules:
        yield from (rule.name, rule.description)
        for atom in atoms(rule.when):
            if isinstance(atom, Compare | In):
                values = atom.values if isinstance(atom, In) else (atom.value,)
                yield from (value for value in values if isinstance(value, str))
    yield from (label for label in rules.classes if isinstance(label, str))


def require_encodable(rules: RuleSet, target: str, forbidden: str = "") -> None:
    """Refuse text that cannot stand in the target.

    Args:
        rules: The rule set.
        target: Name of the language.
        forbidden: Characters that the language has no way to write.

    Raises:
        ExportError: There is half of a surrogate pair, or a forbidden character.
    """
    for text in texts(rules):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ExportError(target, f"the text {text[:40]!a} holds half of a character") from error
        for sign in forbidden:
            if sign in text:
                raise ExportError(target, f"the text {text[:40]!a} holds the character {sign!a}")


def one_line(text: str) -> str:
    """Text for a comment: on one line, whatever it holds; what cannot be printed is spelled out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "replace").decode() for sign in text)
