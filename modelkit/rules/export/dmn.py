"""A rule set as a DMN 1.3 decision table with FEEL entries, and the strict reading of such a table.

Conditions become boxes, a row each; a rule whose condition is a union of boxes takes several rows. Outputs: the
result and ``rule_id``. Hit policies: FIRST for `first` and `priority` (in order of priority), UNIQUE for `unique`,
RULE ORDER for `collect`, COLLECT with sum for `score`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from modelkit.rules.axes import Key, LinearAxis, NumberAxis, make_axes
from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import And, Condition, In, Linear, atoms
from modelkit.rules.cubes import Cube, CubeMaker, TooComplexError, intersection
from modelkit.rules.export import feel, xml
from modelkit.rules.export.errors import ExportError, one_line, require_encodable
from modelkit.rules.model import Action, Label, LinearScore, Number, Outcome, Policy, Rule, RuleSet
from modelkit.rules.onnx_output import sums_are_exact

NAMESPACE = "https://www.omg.org/spec/DMN/20191111/MODEL/"
_HIT = {
    Policy.FIRST: "FIRST",
    Policy.PRIORITY: "FIRST",
    Policy.UNIQUE: "UNIQUE",
    Policy.COLLECT: "RULE ORDER",
    Policy.SCORE: "COLLECT",
}
_POLICIES = {
    "FIRST": Policy.FIRST,
    "UNIQUE": Policy.UNIQUE,
    "RULE ORDER": Policy.COLLECT,
    "COLLECT SUM": Policy.SCORE,
}
_TYPES = {
    ColumnType.CATEGORY: "string",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.DATE: "date",
    ColumnType.DATETIME: "dateTime",
}


def to_dmn(rules: RuleSet) -> str:
    """Write the decision table.

    Raises:
        ExportError: There is something that a decision table cannot say exactly: a vote, a sum over columns,
            clamping, numbers whose decimal sum is not that of doubles, a condition of too many boxes.
    """
    require_encodable(rules, "dmn", "\ufffe\uffff")
    _refuse(rules)
    rows = list(_rows(rules))
    if not rows:
        raise ExportError("dmn", "no rule can ever fire, and a table needs a row")
    used = {key for _, cube in rows for key in cube}
    inputs = [column for column in rules.columns if column.name in used]
    axes, names = _axes(rules), feel.names([column.name for column in rules.columns])
    root = ET.Element("definitions", {"xmlns": NAMESPACE, "id": "definitions", "name": one_line(rules.name)})
    root.set("namespace", "urn:modelkit:rules")
    for index, column in enumerate(inputs):
        data = xml.child(root, "inputData", id=f"data_{index}", name=names[column.name])
        about = "; ".join(part for part in (column.unit, column.description) if part)
        if about:
            xml.child(data, "description", one_line(about))
        xml.child(data, "variable", name=names[column.name], typeRef=_type(column))
    decision = xml.child(root, "decision", id="decision", name=one_line(rules.name))
    for index in range(len(inputs)):
        needed = xml.child(decision, "informationRequirement", id=f"needs_{index}")
        xml.child(needed, "requiredInput", href=f"#data_{index}")
    table = xml.child(decision, "decisionTable", id="table", hitPolicy=_HIT[rules.policy])
    if rules.policy is Policy.SCORE:
        table.set("aggregation", "SUM")
    for index, column in enumerate(inputs):
        clause = xml.child(table, "input", id=f"input_{index}", label=column.name)
        expression = xml.child(clause, "inputExpression", id=f"expression_{index}", typeRef=_type(column))
        xml.child(expression, "text", names[column.name])
    _outputs(table, rules)
    xml.child(table, "annotation", name="rule")
    for number, (index, cube) in enumerate(rows):
        row = xml.child(table, "rule", id=f"row_{number}")
        for column in inputs:
            axis = axes[column.name]
            assert not isinstance(axis, LinearAxis)
            text = feel.tests(axis, cube[column.name]) if column.name in cube else feel.ANY
            xml.child(xml.child(row, "inputEntry", id=f"in_{number}_{len(row)}"), "text", text)
        outcome = rules.default if index < 0 else rules.rules[index].then
        assert outcome is not None
        for text in _entries(outcome, index, rules):
            xml.child(xml.child(row, "outputEntry", id=f"out_{number}_{len(row)}"), "text", text)
        name = "default" if index < 0 else rules.rules[index].name
        xml.child(xml.child(row, "annotationEntry"), "text", one_line(name))
    return xml.write(root)


def _refuse(rules: RuleSet) -> None:
    if rules.policy is Policy.VOTE:
        raise ExportError("dmn", "no hit policy adds up weights of labels")
    if rules.clamp is not None:
        raise ExportError("dmn", "a decision table cannot clamp its result")
    if any(isinstance(outcome, LinearScore) for outcome in rules.outcomes):
        raise ExportError("dmn", "FEEL computes in decimals, which round a sum over columns unlike doubles")
    for rule in rules.rules:
        if any(isinstance(atom, Linear) for atom in atoms(rule.when)):
            raise ExportError("dmn", f"rule '{one_line(rule.name)}' has a sum, which FEEL's decimals round otherwise")
    numbers = [outcome.value for outcome in rules.outcomes if isinstance(outcome, Number)]
    if rules.policy is Policy.SCORE and not sums_are_exact(numbers):
        raise ExportError("dmn", "FEEL adds decimals; these numbers' sums would differ from those of doubles")


def _axes(rules: RuleSet) -> dict[Key, NumberAxis]:
    found = (atom for rule in rules.rules for atom in atoms(rule.when))
    return make_axes(rules.columns, found, exact=True)  # type: ignore[return-value]


def _rows(rules: RuleSet) -> Iterator[tuple[int, Cube]]:
    """Index of a rule and one of its boxes, in the order of the table; with `score` the default is a row, too."""
    maker = CubeMaker(_axes(rules))
    if rules.policy is Policy.SCORE and rules.default is not None:
        yield -1, {}
    for index in rules.order:
        name = one_line(rules.rules[index].name)
        try:
            cubes = maker.cubes(rules.rules[index].when)
        except TooComplexError as error:
            raise ExportError("dmn", f"the condition of rule '{name}' would take too many rows") from error
        if _HIT[rules.policy] != "FIRST" and any(intersection(a, b) is not None for a, b in combinations(cubes, 2)):
            raise ExportError("dmn", f"rule '{name}' would take several rows that hold together")
        yield from ((index, cube) for cube in cubes)


def _type(column: Column) -> str:
    return _TYPES.get(column.type, "number")


def _outputs(table: ET.Element, rules: RuleSet) -> None:
    kind = "string" if not rules.is_numeric and rules.has_text_labels else "number"
    name = "prediction" if rules.is_numeric else "label"
    outputs = [("output_0", name, kind)]
    if rules.policy is not Policy.SCORE:
        outputs.append(("output_1", "rule_id", "number"))
    entries: list[str] | None = None
    if rules.policy is Policy.SCORE:
        entries = ["0"] if rules.default is None else None
    elif rules.default is not None:
        entries = _entries(rules.default, -1, rules)
    for index, (id_, name, type_) in enumerate(outputs):
        output = xml.child(table, "output", id=id_, name=name, typeRef=type_)
        if entries is not None:
            xml.child(xml.child(output, "defaultOutputEntry", id=f"default_{index}"), "text", entries[index])


def _entries(outcome: Outcome, index: int, rules: RuleSet) -> list[str]:
    found = [_literal(outcome)]
    return found if rules.policy is Policy.SCORE else [*found, str(index)]


def _literal(outcome: Outcome) -> str:
    if isinstance(outcome, Number):
        return feel.number(float(outcome.value))
    assert isinstance(outcome, Label | Action)
    return feel.string(outcome.value) if isinstance(outcome.value, str) else str(outcome.value)


@dataclass(frozen=True)
class DecisionTable:
    """A decision table that was read.

    Attributes:
        rules: Its rows as rules, over the columns that it looks at.
        rule_ids: The rule_id that each row gives; empty where the table gives none.
        names: What each column is called outside, by its name in the table.
    """

    rules: RuleSet
    rule_ids: tuple[int, ...]
    names: dict[str, str]


def from_dmn(text: str | bytes) -> DecisionTable:
    """Read a decision table of the kind that `to_dmn` writes.

    Raises:
        ConfigError: It is something else, or no well-formed XML.
    """
    try:
        return _read(xml.read(text, NAMESPACE))
    except (ValueError, KeyError, IndexError) as error:
        raise xml.broken(one_line(str(error))) from error


def _read(root: ET.Element) -> DecisionTable:
    tables = root.findall("decision/decisionTable")
    if root.tag != "definitions" or len(tables) != 1:
        raise ValueError("one decision with one decision table is expected")
    table = tables[0]
    hit = " ".join((table.get("hitPolicy", "UNIQUE"), table.get("aggregation", ""))).strip()
    if hit not in _POLICIES:
        raise ValueError(f"the hit policy {hit[:40]!a} is not read")
    policy = _POLICIES[hit]
    names = [
        (_text(clause, "inputExpression/text"), clause.find("inputExpression")) for clause in table.findall("input")
    ]
    outputs = table.findall("output")
    rows = [_row(row, [name for name, _ in names], len(outputs)) for row in table.findall("rule")]
    given = [output.findtext("defaultOutputEntry/text") for output in outputs]
    kind = outputs[0].get("name")
    default = None if not given or given[0] is None else _outcome(given[0], kind)
    columns = []
    for name, expression in names:
        type_ = "" if expression is None else expression.get("typeRef", "")
        columns.append(_column(name, type_, [when for when, _ in rows]))
    made = [Rule(f"row {i}", when, _outcome(entries[0], kind)) for i, (when, entries) in enumerate(rows)]
    ids = tuple(int(entries[1]) for _, entries in rows) if len(outputs) > 1 else ()
    listed = tuple(columns) or (Column("none", ColumnType.NUMBER, missing=True),)
    outside = {
        name: clause.get("label", name) for (name, _), clause in zip(names, table.findall("input"), strict=True)
    }
    return DecisionTable(RuleSet(listed, tuple(made), policy, default), ids, outside)


def _text(element: ET.Element, path: str) -> str:
    found = element.findtext(path)
    if not found:
        raise ValueError(f"an element {element.tag} has no {path}")
    return found


def _row(row: ET.Element, names: list[str], outputs: int) -> tuple[Condition, list[str]]:
    tests = [_text(entry, "text") for entry in row.findall("inputEntry")]
    entries = [_text(entry, "text") for entry in row.findall("outputEntry")]
    if len(tests) != len(names) or len(entries) != outputs:
        raise ValueError(f"the row '{row.get('id', '')[:40]}' has another number of entries than the table")
    return And(tuple(feel.parse_tests(test, name) for test, name in zip(tests, names, strict=True))), entries


def _outcome(text: str, kind: str | None) -> Outcome:
    value = feel.parse_literal(text)
    if isinstance(value, str):
        return Label(value)
    if value is None or isinstance(value, bool):
        raise ValueError(f"the output {text[:60]!a} is no label and no number")
    return Number(value) if kind == "prediction" else Label(int(text))


def _column(name: str, type_: str, conditions: list[Condition]) -> Column:
    types = {"string": ColumnType.CATEGORY, "number": ColumnType.NUMBER, "boolean": ColumnType.BOOLEAN}
    kind = {**types, "date": ColumnType.DATE, "dateTime": ColumnType.DATETIME}[type_]
    found = [
        value
        for condition in conditions
        for atom in atoms(condition)
        if isinstance(atom, In) and atom.column == name
        for value in atom.values
        if isinstance(value, str)
    ]
    values = tuple(dict.fromkeys(found)) or ("any",) if kind.is_text else ()
    return Column(name, kind, values=values, other=kind.is_text, missing=True)
