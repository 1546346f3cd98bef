"""Conditions as predicates of PMML 4.4, and back.

PMML has no NOT, and a predicate on a missing value is unknown, with which no rule fires. So negations are taken to
the comparisons, where ``not (x > 3)`` is ``x <= 3 or x is missing``: what is left has AND and OR alone, and with
them unknown can stand for false.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from modelkit.rules.columns import Column, ColumnType, Value, number_text
from modelkit.rules.conditions import (
    ALWAYS,
    NEVER,
    And,
    Atom,
    Between,
    Compare,
    Condition,
    In,
    IsMissing,
    Linear,
    Not,
    Operator,
    Or,
    all_of,
    any_of,
)
from modelkit.rules.export import xml

OPERATORS = {
    Operator.EQ: "equal",
    Operator.NE: "notEqual",
    Operator.LT: "lessThan",
    Operator.LE: "lessOrEqual",
    Operator.GT: "greaterThan",
    Operator.GE: "greaterOrEqual",
}
_OPPOSITE = {
    Operator.EQ: Operator.NE,
    Operator.NE: Operator.EQ,
    Operator.LT: Operator.GE,
    Operator.GE: Operator.LT,
    Operator.GT: Operator.LE,
    Operator.LE: Operator.GT,
}
_NAMES = {name: op for op, name in OPERATORS.items()}


def positive(condition: Condition, *, negated: bool = False) -> Condition:
    """The same condition without `Not`: of comparisons that are false where a value is missing, and `IsMissing`."""
    if isinstance(condition, Not):
        return positive(condition.term, negated=not negated)
    if isinstance(condition, And | Or):
        terms = [positive(term, negated=negated) for term in condition.terms]
        return all_of(*terms) if isinstance(condition, And) != negated else any_of(*terms)
    return _opposite(condition) if negated else condition


def _opposite(atom: Atom) -> Condition:
    if isinstance(atom, IsMissing):
        return In(atom.column, (), negated=True)
    columns = [name for name, _ in atom.terms] if isinstance(atom, Linear) else [atom.column]
    missing = [IsMissing(name) for name in dict.fromkeys(columns)]
    if isinstance(atom, Compare):
        return any_of(Compare(atom.column, _OPPOSITE[atom.op], atom.value), *missing)
    if isinstance(atom, Between):
        low, high = Compare(atom.column, Operator.LT, atom.low), Compare(atom.column, Operator.GT, atom.high)
        return any_of(low, high, *missing)
    if isinstance(atom, In):
        return any_of(In(atom.column, atom.values, not atom.negated), *missing)
    return any_of(Linear(atom.terms, _OPPOSITE[atom.op], atom.bound), *missing)


class Predicates:
    """Writes predicates.

    Args:
        columns: The columns by name.
        sums: Name of the derived field for each sum of terms.
    """

    def __init__(self, columns: Mapping[str, Column], sums: Mapping[tuple[tuple[str, float], ...], str]) -> None:
        self._columns, self._sums = columns, sums

    def add(self, parent: ET.Element, condition: Condition) -> None:
        """Append the predicate of a condition without `Not`."""
        if isinstance(condition, And | Or):
            if not condition.terms:
                xml.child(parent, "True" if isinstance(condition, And) else "False")
            elif len(condition.terms) == 1:
                self.add(parent, condition.terms[0])
            else:
                join = "and" if isinstance(condition, And) else "or"
                compound = xml.child(parent, "CompoundPredicate", booleanOperator=join)
                for term in condition.terms:
                    self.add(compound, term)
        elif isinstance(condition, Between):
            low = Compare(condition.column, Operator.GE, condition.low)
            self.add(parent, And((low, Compare(condition.column, Operator.LE, condition.high))))
        elif isinstance(condition, In):
            self._in(parent, condition)
        elif isinstance(condition, IsMissing):
            xml.child(parent, "SimplePredicate", field=condition.column, operator="isMissing")
        elif isinstance(condition, Linear):
            operator = OPERATORS[condition.op]
            field = self._sums[condition.terms]
            xml.child(parent, "SimplePredicate", field=field, operator=operator, value=repr(float(condition.bound)))
        else:
            assert isinstance(condition, Compare)
            value = self._value(condition.column, condition.value)
            xml.child(
                parent, "SimplePredicate", field=condition.column, operator=OPERATORS[condition.op], value=value
            )

    def _value(self, column: str, value: Value) -> str:
        if isinstance(value, str):
            return value
        if self._columns[column].type is ColumnType.BOOLEAN:
            return "true" if value else "false"
        # Days and seconds are whole numbers in PMML.
        is_time = self._columns[column].type in (ColumnType.DATE, ColumnType.DATETIME)
        return number_text(value) if is_time else repr(float(value))

    def _in(self, parent: ET.Element, atom: In) -> None:
        values = [self._value(atom.column, value) for value in atom.values]
        if not values and not atom.negated:
            xml.child(parent, "False")
        elif not values:
            xml.child(parent, "SimplePredicate", field=atom.column, operator="isNotMissing")
        elif all(value.isprintable() and not set(value) & set('"\\') for value in values):
            operator = "isNotIn" if atom.negated else "isIn"
            chosen = xml.child(parent, "SimpleSetPredicate", field=atom.column, booleanOperator=operator)
            text = self._columns[atom.column].type.is_text
            shown = " ".join(f'"{value}"' if text else value for value in values)
            boolean = self._columns[atom.column].type is ColumnType.BOOLEAN
            xml.child(chosen, "Array", shown, n=str(len(values)), type="string" if text or boolean else "real")
        else:  # an array has no way to write a backslash that all readers agree on
            op = Operator.NE if atom.negated else Operator.EQ
            terms = tuple(Compare(atom.column, op, value) for value in atom.values)
            self.add(parent, And(terms) if atom.negated else Or(terms))


class PredicateReader:
    """Reads predicates.

    Args:
        types: Type of each field.
        sums: Terms of the derived fields.
    """

    def __init__(self, types: Mapping[str, ColumnType], sums: Mapping[str, tuple[tuple[str, float], ...]]) -> None:
        self._types, self._sums = types, sums

    def first(self, element: ET.Element) -> Condition:
        """The one predicate among the children of an element.

        Raises:
            ValueError: There is none, or one that is not understood.
        """
        kinds = ("SimplePredicate", "SimpleSetPredicate", "CompoundPredicate", "True", "False")
        found = [each for each in element if each.tag in kinds]
        if len(found) != 1:
            raise ValueError(f"an element {element.tag} has {len(found)} predicates; one is expected")
        return self.read(found[0])

    def read(self, element: ET.Element) -> Condition:
        """A predicate as a condition."""
        if element.tag in ("True", "False"):
            return ALWAYS if element.tag == "True" else NEVER
        if element.tag == "CompoundPredicate":
            terms = tuple(self.read(each) for each in element)
            join = element.attrib["booleanOperator"]
            if join not in ("and", "or"):
                raise ValueError(f"the operator {join[:40]!a} is not read")
            return And(terms) if join == "and" else Or(terms)
        if element.tag == "SimpleSetPredicate":
            return self._set(element)
        if element.tag != "SimplePredicate":
            raise ValueError(f"the element {element.tag[:40]!a} is no predicate")
        field, operator = element.attrib["field"], element.attrib["operator"]
        if operator in ("isMissing", "isNotMissing"):
            return IsMissing(field) if operator == "isMissing" else Not(IsMissing(field))
        op, value = _NAMES[operator], element.attrib["value"]
        if field in self._sums:
            return Linear(self._sums[field], op, float(value))
        return Compare(field, op, self._value(field, value))

    def _value(self, field: str, text: str) -> Value:
        type_ = self._types[field]
        if type_ is ColumnType.BOOLEAN:
            return {"true": 1.0, "false": 0.0}[text]
        return text if type_.is_text else float(text)

    def _set(self, element: ET.Element) -> Condition:
        field = element.attrib["field"]
        array = element.find("Array")
        if array is None:
            raise ValueError("a SimpleSetPredicate has no Array")
        text = array.text or ""
        parts: Sequence[str] = text[1:-1].split('" "') if text.startswith('"') else text.split()
        if len(parts) != int(array.attrib["n"]):
            raise ValueError(f"an Array holds {len(parts)} values; {array.attrib['n']} are announced")
        negated = {"isIn": False, "isNotIn": True}[element.attrib["booleanOperator"]]
        return In(field, tuple(self._value(field, part) for part in parts), negated)
