"""Conditions as YAML holds them: text, ``[column, op, value]`` triples, lists, and any of / all of / not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from modelkit.config.nodes import Node, plain, written
from modelkit.rules.columns import Column, ColumnType, Value, date_number
from modelkit.rules.conditions import (
    MAX_DEPTH,
    NEVER,
    And,
    Between,
    Compare,
    Condition,
    In,
    IsMissing,
    Not,
    Operator,
    Or,
)
from modelkit.rules.language import parse_condition
from modelkit.rules.phrases import operator_of
from modelkit.rules.typecheck import atom_problems, near, unknown_column

_JOINS = ("any of", "all of", "not")
_WORDS = ("in", "not in", "between", "not between", "is", "is not")


class ConditionReader:
    """Reads conditions from nodes.

    Args:
        columns: The columns by name.
        report: Called with a node, the offset in its text, and what is wrong.
    """

    def __init__(self, columns: Mapping[str, Column], report: Callable[[Node, int, str], None]) -> None:
        self._columns, self._report = columns, report

    def read(self, node: Node, depth: int = 0) -> Condition:
        """The condition of a node; `NEVER`, and a report, where something is wrong."""
        try:
            return self._read(node, depth)
        except ValueError as error:  # nested too deep
            self._report(node, 0, str(error))
            return NEVER

    def _read(self, node: Node, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise ValueError(f"conditions are nested more than {MAX_DEPTH} deep")
        if isinstance(node.value, str):
            parsed = parse_condition(node.value, self._columns)
            for fault in parsed.faults:
                self._report(node, fault.offset, fault.text)
            return NEVER if parsed.condition is None else parsed.condition
        if isinstance(node.value, list):
            if self._is_triple(node.value):
                return self._triple(node.value)
            return self._join("all of", node.value, depth)
        if isinstance(node.value, dict):
            return self._mapping(node, depth)
        self._report(node, 0, f"{written(node.value)} is no condition; write text such as x > 1")
        return NEVER

    def _join(self, how: str, nodes: list[Node], depth: int) -> Condition:
        terms = tuple(self.read(node, depth + 1) for node in nodes)
        if len(terms) == 1:
            return terms[0]
        return Or(terms) if how == "any of" else And(terms)

    def _mapping(self, node: Node, depth: int) -> Condition:
        assert isinstance(node.value, dict)
        if len(node.value) != 1 or next(iter(node.value)) not in _JOINS:
            key = next((key for key in node.value if key not in _JOINS), "")
            advice = near(key, _JOINS) if key else ""
            self._report(node, 0, f"a condition that is a mapping has one key, any of, all of or not{advice}")
            return NEVER
        key, inner = next(iter(node.value.items()))
        if key == "not":
            return Not(self.read(inner, depth + 1))
        if not isinstance(inner.value, list) or not inner.value or self._is_triple(inner.value):
            self._report(inner, 0, f"'{key}' takes a list of conditions")
            return NEVER
        return self._join(key, inner.value, depth)

    def _is_triple(self, items: list[Node]) -> bool:
        if len(items) not in (2, 3) or not all(isinstance(item.value, str) for item in items[:2]):
            return False
        column, op = str(items[0].value), str(items[1].value).strip()
        if re.fullmatch(r"[<>=!≤≥≠~&|^:]+", op) or op in _WORDS:
            return True
        known = self._columns.get(column)
        return known is not None and known.type is not ColumnType.BOOLEAN

    def _triple(self, items: list[Node]) -> Condition:
        name, op = str(items[0].value), str(items[1].value).strip()
        column = self._columns.get(name)
        if column is None:
            self._report(items[0], 0, unknown_column(name, self._columns))
            return NEVER
        if len(items) == 2:
            self._report(items[1], 0, f"a value is missing after '{op}'")
            return NEVER
        last = items[2]
        if op in ("is", "is not"):
            if last.value not in ("missing", None):
                self._report(last, 0, "after 'is' comes 'missing'")
            return IsMissing(name) if op == "is" else Not(IsMissing(name))
        many = last.value if isinstance(last.value, list) else [last]
        values = [self._value(column, node) for node in many]
        if any(value is None for value in values):
            return NEVER
        found = self._meaning(column, op, items[1], [value for value in values if value is not None])
        atoms = found.terms if isinstance(found, And) else (found,)
        for atom in atoms:
            if isinstance(atom, Compare | Between | In):
                for text in atom_problems(atom, self._columns):
                    self._report(last, 0, text)
        return found

    def _meaning(self, column: Column, op: str, where: Node, values: list[Value]) -> Condition:
        if op in ("in", "not in"):
            return In(column.name, tuple(values), negated=op == "not in")
        if op in ("between", "not between"):
            if len(values) != 2 or not all(isinstance(value, float) for value in values):
                self._report(where, 0, f"'{op}' takes a list of two numbers or dates")
                return NEVER
            between = Between(column.name, float(values[0]), float(values[1]))
            return between if op == "between" else And((Not(between), Not(IsMissing(column.name))))
        operator = operator_of(op)
        if not isinstance(operator, Operator):
            self._report(where, 0, operator)
            return NEVER
        if len(values) != 1:
            self._report(where, 0, f"'{op}' takes one value")
            return NEVER
        return Compare(column.name, operator, values[0])

    def _value(self, column: Column, node: Node) -> Value | None:
        value = node.value
        is_a = f"column '{column.name}' is a {column.type} and is compared with {written(plain(node))}"
        if isinstance(value, bool):
            if column.type is ColumnType.BOOLEAN:
                return float(value)
        elif isinstance(value, int | float) and not column.type.is_text and column.type is not ColumnType.BOOLEAN:
            return float(value)
        elif isinstance(value, str) and column.type.is_text:
            return value
        elif isinstance(value, str) and column.type in (ColumnType.DATE, ColumnType.DATETIME):
            try:
                return date_number(value, column.type)
            except ValueError as error:
                self._report(node, 0, f"'{value}' is no {column.type}: {error}")
                return None
        wanted = {"category": "text", "boolean": "true or false", "date": "a date", "datetime": "a date"}
        self._report(node, 0, f"{is_a}; {wanted.get(str(column.type), 'a number')} is expected")
        return None
