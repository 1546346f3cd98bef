"""The language of conditions: text becomes a `Condition`, and what is wrong is said with its place in the text.

``petal_length > 1.5 and species_group in [a, b]``, ``age between 18 and 30``, ``income is missing``,
``any of (x > 1, y < 2)``, ``not member``, ``0 <= x < 1``, ``2 * debt - income > 0``. The grammar is
``grammar.lark``; it is parsed by lark as LALR(1), which neither recurses nor backtracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import UnexpectedEOF

from modelkit.rules.columns import Column
from modelkit.rules.conditions import ALWAYS, MAX_DEPTH, NEVER, And, Condition, Not, Or
from modelkit.rules.phrases import Fault, Phrases, Sum, Term
from modelkit.rules.typecheck import near

MAX_TEXT = 1 << 20
"""Characters that one condition may have."""

_WORDS = ("and", "or", "not", "in", "is missing", "between", "any of", "all of")
_OPERATOR_WORDS = {
    **dict.fromkeys(("equals", "equal", "eq", "is", "like"), "="),
    **{"gt": ">", "greater": ">", "above": ">", "over": ">", "ge": ">=", "lt": "<", "less": "<", "below": "<"},
    **{"under": "<", "le": "<=", "ne": "!=", "isnt": "!=", "null": "is missing", "nan": "is missing"},
}


@dataclass(frozen=True)
class Parsed:
    """What came of a text.

    Attributes:
        condition: The condition; None where something is wrong.
        faults: Everything that is wrong, with its offset in the text.
    """

    condition: Condition | None
    faults: tuple[Fault, ...] = ()


def parse_condition(text: str, columns: Mapping[str, Column]) -> Parsed:
    """Read one condition.

    Args:
        text: The condition, in the language of this module.
        columns: The columns by name.
    """
    if len(text) > MAX_TEXT:
        return Parsed(None, (Fault(0, f"the condition is longer than {MAX_TEXT} characters"),))
    if not text.strip():
        return Parsed(None, (Fault(0, "the condition is empty; write 'always' for one that always holds"),))
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedInput as error:
        return Parsed(None, (_syntax(error, text),))
    except _DeepError as error:
        return Parsed(None, (Fault(0, str(error)),))
    phrases = Phrases(columns)
    condition = _resolve(tree, phrases)
    return Parsed(None if phrases.faults else condition, tuple(phrases.faults))


class _DeepError(Exception):
    """Conditions are nested too deep."""


@dataclass(frozen=True)
class _Node:
    """A joined or negated condition, or a phrase that is still to be understood."""

    kind: str
    parts: tuple[Any, ...]
    depth: int


@v_args(inline=True)
class _Build(Transformer[Token, _Node]):
    """Makes nodes as the parser reduces, so that no tree of rules is kept."""

    def start(self, node: _Node) -> _Node:
        return node

    def sum(self, *parts: Token | Term | None) -> Sum:
        terms: list[Term] = []
        sign = 1.0
        for part in parts:
            if isinstance(part, Term):
                terms.append(Term(part.token, part.factor, sign))
            elif part is not None:
                sign = -1.0 if part == "-" else 1.0
        return Sum(tuple(terms))

    def term(self, token: Token) -> Term:
        return Term(token)

    def product(self, left: Token, right: Token) -> Term:
        return Term(right, left) if left.type == "NUMBER" else Term(left, right)

    def __default__(self, data: Any, children: list[Any], meta: Any) -> _Node | Tree[Any]:
        if str(data).startswith("_"):  # to be inlined, which lark does to trees only
            return Tree(data, children)
        nested = [child.depth for child in children if isinstance(child, _Node)]
        depth = 1 + max(nested, default=-1)
        if depth > MAX_DEPTH:
            raise _DeepError(f"conditions are nested more than {MAX_DEPTH} deep")
        return _Node(str(data), tuple(child for child in children if child is not None), depth)


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", transformer=_Build(), maybe_placeholders=False)


def _resolve(node: _Node, phrases: Phrases) -> Condition:
    """What a node means; problems are left with the phrases."""
    if node.kind in ("both", "all_of"):
        return And(tuple(_resolve(part, phrases) for part in node.parts))
    if node.kind in ("either", "any_of"):
        return Or(tuple(_resolve(part, phrases) for part in node.parts))
    if node.kind == "negation":
        return Not(_resolve(node.parts[0], phrases))
    if node.kind in ("always", "never"):
        return ALWAYS if node.kind == "always" else NEVER
    return phrases.understand(node.kind, node.parts)


def _syntax(error: UnexpectedInput, text: str) -> Fault:
    """What is wrong with a text that the grammar does not know, in words."""
    offset = min(error.pos_in_stream or 0, len(text))
    if isinstance(error, UnexpectedEOF) or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        return Fault(len(text.rstrip()), f"the condition ends too early{_wanted(error)}")
    if isinstance(error, UnexpectedCharacters):
        if text[offset] in "\"'`":
            return Fault(offset, "the quote that begins here has no end")
        return Fault(offset, f"the character {text[offset]!a} means nothing here")
    assert isinstance(error, UnexpectedToken)
    token, written = error.token, str(error.token)
    if token.type == "NAME" and "OP" in error.expected:
        word = written.lower()
        if word in _OPERATOR_WORDS:
            return Fault(offset, f"unknown operator '{written}' (did you mean '{_OPERATOR_WORDS[word]}'?)")
        return Fault(offset, f"an operator is expected before '{written}'{near(written, _WORDS)}")
    return Fault(offset, f"'{written}' is not expected here{_wanted(error)}")


_KINDS = {
    "OP": "a comparison",
    "NAME": "a name or value",
    "NUMBER": "a number",
    "RPAR": "')'",
    "RSQB": "']'",
    "OF": "'of'",
    "MISSING": "'missing'",
    "AND": "'and'",
    "LSQB": "'['",
}


def _wanted(error: UnexpectedInput) -> str:
    expected = set(getattr(error, "expected", None) or ())
    names = [text for kind, text in _KINDS.items() if kind in expected]
    return f"; {' or '.join(names[:3])} may follow" if names else ""
