"""From a validated rules file to a rule set: what the schema cannot check is checked here, each with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelkit.config.nodes import Node
from modelkit.errors import ConfigError
from modelkit.rules.columns import Column, ColumnType, date_number
from modelkit.rules.conditions import ALWAYS, Condition
from modelkit.rules.config import ColumnSpec, ConstraintSpec, LinearSpec, RulesFile
from modelkit.rules.model import (
    Action,
    Bound,
    Claim,
    Clamp,
    Forbid,
    Label,
    LinearScore,
    Monotone,
    Number,
    Outcome,
    Policy,
    Require,
    Rule,
    RuleSet,
    claim_problems,
    outcome_problems,
)
from modelkit.rules.nodes import ConditionReader
from modelkit.rules.places import Places

Order = tuple[int, ...]


class SetBuilder:
    """Makes a rule set of a file.

    Args:
        file: The validated file.
        tree: The same as nodes, which know their places.
        places: Places in the file.
        stem: Name of the set where the file gives none.

    Attributes:
        problems: What is wrong: the order to show it in, and a line.
    """

    def __init__(self, file: RulesFile, tree: Node, places: Places, stem: str) -> None:
        self.problems: list[tuple[Order, str]] = []
        self._file, self._tree, self._places, self._stem = file, tree, places, stem

    def build(self) -> RuleSet | None:
        """The rule set; None where there are problems."""
        columns = [self._column(name, spec) for name, spec in self._file.columns.items()]
        by_name = {column.name: column for column in columns}
        reader = ConditionReader(by_name, self._report)
        make = self._outcome_maker(by_name)
        rules = [self._rule(i, reader, make) for i in range(len(self._file.rules))]
        self._twice()
        default = None
        if self._file.default is not None:
            default = make(self._file.default, _child(self._tree, "default"))
        clamp, claims = self._constraints(reader)
        if self.problems:
            return None
        try:
            found = RuleSet(
                tuple(columns),
                tuple(rules),
                self._file.policy,
                default,
                tuple(self._file.labels),
                tuple((base.label, base.score) for base in self._file.base),
                clamp,
                (),
                self._file.name or self._stem,
                self._file.description,
            )
        except ConfigError as error:
            for text in error.problems:
                self._report(self._tree, 0, text)
            return None
        for node, claim in claims:
            for text in claim_problems(claim, found):
                self._report(node, 0, text)
        return None if self.problems else found.with_claims(tuple(claim for _, claim in claims))

    def _report(self, node: Node, offset: int, text: str) -> None:
        order, place = self._places.at(node, offset)
        self.problems.append((order, f"{place}: {text}" if place else text))

    def _column(self, name: str, spec: ColumnType | ColumnSpec) -> Column:
        node = _child(_child(self._tree, "columns"), name)
        if isinstance(spec, ColumnType):
            column = Column(name, spec)
        else:
            low, high = [self._bound(bound, spec.type, node) for bound in spec.range or (None, None)]
            column = Column(
                name, spec.type, low, high, tuple(spec.values), spec.other, spec.missing, spec.unit, spec.description
            )
        for text in column.problems():
            self._report(node, 0, text)
        return column

    def _bound(self, bound: float | str | None, type_: ColumnType, node: Node) -> float | None:
        if not isinstance(bound, str):
            return None if bound is None else float(bound)
        try:
            if type_ in (ColumnType.DATE, ColumnType.DATETIME):
                return date_number(bound, type_)
            self._report(node, 0, f"the range holds '{bound}'; the bounds of a {type_} are numbers")
        except ValueError as error:
            self._report(node, 0, f"the range holds '{bound}', which is no {type_}: {error}")
        return None

    def _outcome_maker(self, columns: dict[str, Column]) -> Callable[[Any, Node], Outcome]:
        kind = self._file.outcome or self._kind()

        def make(value: Any, node: Node) -> Outcome:
            outcome = _outcome(value, kind)
            if outcome is None:
                self._report(node, 0, f"the outcome '{value}' is no {kind}; {_ADVICE[kind]}")
                return Number(0.0)
            for text in outcome_problems(outcome, columns):
                self._report(node, 0, text)
            return outcome

        return make

    def _kind(self) -> str:
        """What outcomes are where the file does not say so."""
        values = [rule.then for rule in self._file.rules]
        if self._file.policy is Policy.SCORE or any(isinstance(value, float | LinearSpec) for value in values):
            return "number"
        return "label"

    def _rule(self, index: int, reader: ConditionReader, make: Callable[[Any, Node], Outcome]) -> Rule:
        spec, node = self._file.rules[index], _child(_child(self._tree, "rules"), index)
        when = reader.read(_child(node, "when"))
        then = make(spec.then, _child(node, "then"))
        name = spec.name or f"rule {index + 1}"
        return Rule(name, when, then, float(spec.priority), float(spec.weight), spec.description)

    def _twice(self) -> None:
        """Report names that two rules share."""
        seen: dict[str, int] = {}
        for index, spec in enumerate(self._file.rules):
            name = spec.name or f"rule {index + 1}"
            node = _child(_child(self._tree, "rules"), index)
            if name in seen:
                first = _child(_child(self._tree, "rules"), seen[name])
                self._report(_child(node, "name"), 0, f"two rules are called '{name}'; the first: {first.place}")
            seen.setdefault(name, index)

    def _constraints(self, reader: ConditionReader) -> tuple[Clamp | None, list[tuple[Node, Claim]]]:
        clamp: Clamp | None = None
        claims: list[tuple[Node, Claim]] = []
        for index, spec in enumerate(self._file.constraints):
            node = _child(_child(self._tree, "constraints"), index)
            if spec.clamp is not None:
                if clamp is not None:
                    self._report(node, 0, "clamp is given twice")
                clamp = Clamp(*spec.clamp)
                continue
            when = ALWAYS if spec.when is None else reader.read(_child(node, "when"))
            claims.append((node, _claim(spec, when)))
        return clamp, claims


_ADVICE = {
    "label": "labels are text or whole numbers ('outcome: number' predicts numbers)",
    "action": "actions are names",
    "number": "a number or a linear score is expected ('outcome: label' gives labels)",
}


def _outcome(value: Any, kind: str) -> Outcome | None:
    if kind == "number":
        if isinstance(value, LinearSpec):
            terms = value.linear
            pairs = terms.items() if isinstance(terms, dict) else [(term.column, term.coefficient) for term in terms]
            return LinearScore(float(value.intercept), tuple((name, float(factor)) for name, factor in pairs))
        return Number(float(value)) if isinstance(value, int | float) else None
    if kind == "action":
        return Action(value) if isinstance(value, str) else None
    return Label(value) if isinstance(value, str | int) else None


def _claim(spec: ConstraintSpec, when: Condition) -> Claim:
    if spec.monotone is not None:
        return Monotone(spec.monotone, spec.direction == "rises", spec.label)
    for kind, labels in ((Forbid, spec.forbid), (Require, spec.require)):
        if labels is not None:
            return kind(tuple(labels) if isinstance(labels, list) else (labels,), when)
    return Bound(spec.at_least, spec.at_most, when)


def _child(node: Node, key: str | int) -> Node:
    """A part of a node; the node itself where it has no such part."""
    if isinstance(node.value, dict) and isinstance(key, str):
        return node.value.get(key, node)
    if isinstance(node.value, list) and isinstance(key, int):
        return node.value[key]
    return node
