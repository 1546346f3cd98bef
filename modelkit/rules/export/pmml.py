"""A rule set as PMML 4.4: a RuleSetModel for labels, a TreeModel or Scorecard for numbers; and the strict way back.

=========================  =====================================================================================
first, priority, unique    RuleSetModel with firstHit, in the order in which rules are asked. Numbers: a TreeModel
                           whose root has a leaf for each rule; the first that is true gives the number.
vote                       RuleSetModel with weightedSum: of equal sums the label first in the data dictionary
                           wins, as here. Weights must be positive, and there can be no base scores.
score                      Scorecard: a characteristic for each rule, 0 where it does not fire.
clamp                      Targets with min and max.
=========================  =====================================================================================
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from modelkit.rules.columns import ColumnType
from modelkit.rules.conditions import Condition, Linear, atoms
from modelkit.rules.export import xml
from modelkit.rules.export.errors import ExportError, one_line, require_encodable
from modelkit.rules.export.pmml_predicates import Predicates, positive
from modelkit.rules.model import Action, Label, LinearScore, Number, Outcome, Policy, Rule, RuleSet

NAMESPACE = "http://www.dmg.org/PMML-4_4"
TYPES = {
    ColumnType.NUMBER: "double",
    ColumnType.INTEGER: "double",
    ColumnType.CATEGORY: "string",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.DATE: "dateDaysSince[1970]",
    ColumnType.DATETIME: "dateTimeSecondsSince[1970]",
}
RULE_NAME = "rule"
_MAX_TERMS = 200
Sums = dict[tuple[tuple[str, float], ...], str]


def to_pmml(rules: RuleSet) -> str:
    """Write the model; the id of a rule is its ``rule_id``.

    Raises:
        ExportError: There is something that PMML cannot say exactly: all that is collected, base scores, votes of
            negative weight, a linear default, control characters.
    """
    require_encodable(rules, "pmml", xml.FORBIDDEN)
    _refuse(rules)
    conditions = [positive(rule.when) for rule in rules.rules]
    sums = _sums(rules, conditions)
    target = _free("prediction" if rules.is_numeric else "label", rules)
    root = ET.Element("PMML", {"xmlns": NAMESPACE, "version": "4.4"})
    header = xml.child(root, "Header", description=one_line(rules.description or rules.name))
    xml.child(header, "Application", name="modelkit")
    _dictionary(root, rules, target)
    if rules.policy is Policy.SCORE:
        model = xml.child(root, "Scorecard", modelName=one_line(rules.name), functionName="regression")
        model.set("initialScore", _score(rules.default) if rules.default is not None else "0.0")
        model.set("useReasonCodes", "false")
    elif rules.is_numeric:
        model = xml.child(root, "TreeModel", modelName=one_line(rules.name), functionName="regression")
        last = "returnNullPrediction" if rules.default is None else "returnLastPrediction"
        model.attrib |= {
            "splitCharacteristic": "multiSplit",
            "missingValueStrategy": "none",
            "noTrueChildStrategy": last,
        }
    else:
        model = xml.child(root, "RuleSetModel", modelName=one_line(rules.name), functionName="classification")
    schema = xml.child(model, "MiningSchema")
    for column in rules.columns:
        xml.child(schema, "MiningField", name=column.name, missingValueTreatment="asIs")
    xml.child(schema, "MiningField", name=target, usageType="target")
    _clamp(model, rules, target)
    _derived(model, sums)
    writer = Predicates(rules.column, sums)
    body = {Policy.SCORE: _scorecard}.get(rules.policy, _tree if rules.is_numeric else _rule_set)
    body(model, rules, conditions, writer)
    return xml.write(root)


def _refuse(rules: RuleSet) -> None:
    if rules.policy is Policy.COLLECT:
        raise ExportError("pmml", "a model gives one result; it cannot collect several")
    if rules.base:
        raise ExportError("pmml", "weightedSum knows no scores before the vote")
    if rules.policy is Policy.VOTE and any(rule.weight <= 0 for rule in rules.rules):
        raise ExportError("pmml", "weightedSum needs positive weights")
    if isinstance(rules.default, LinearScore):
        raise ExportError("pmml", "the default must be a constant")
    if not rules.is_numeric or rules.policy is Policy.SCORE:
        return
    if any(isinstance(outcome, LinearScore) for outcome in rules.outcomes):
        raise ExportError("pmml", "a leaf gives a constant; the policy score can add up columns")


def _sums(rules: RuleSet, conditions: list[Condition]) -> Sums:
    """A derived field for each weighted sum that a condition looks at."""
    found: Sums = {}
    for condition in conditions:
        for atom in atoms(condition):
            if isinstance(atom, Linear) and atom.terms not in found:
                found[atom.terms] = _free(f"sum {len(found) + 1}", rules)
    return found


def _free(name: str, rules: RuleSet) -> str:
    while name in rules.column:
        name += "_"
    return name


def _dictionary(root: ET.Element, rules: RuleSet, target: str) -> None:
    dictionary = xml.child(root, "DataDictionary", numberOfFields=str(len(rules.columns) + 1))
    for column in rules.columns:
        field = xml.child(dictionary, "DataField", name=column.name, dataType=TYPES[column.type])
        field.set("optype", "continuous" if column.type.is_ordered else "categorical")
        if column.unit:
            field.set("displayName", one_line(f"{column.name} ({column.unit})"))
        for value in column.values:
            if not column.other:  # declared values would make others invalid
                xml.child(field, "Value", value=value)
    kind = "double" if rules.is_numeric else "string" if rules.has_text_labels else "integer"
    optype = "continuous" if rules.is_numeric else "categorical"
    field = xml.child(dictionary, "DataField", name=target, dataType=kind, optype=optype)
    for label in rules.classes:
        xml.child(field, "Value", value=str(label))


def _clamp(model: ET.Element, rules: RuleSet, target: str) -> None:
    if rules.clamp is None or rules.clamp.low is rules.clamp.high is None:
        return
    found = xml.child(xml.child(model, "Targets"), "Target", field=target)
    for name, bound in (("min", rules.clamp.low), ("max", rules.clamp.high)):
        if bound is not None:
            found.set(name, repr(float(bound)))


def _derived(model: ET.Element, sums: Sums) -> None:
    if not sums:
        return
    parent = xml.child(model, "LocalTransformations")
    for terms, name in sums.items():
        add_sum(xml.child(parent, "DerivedField", name=name, dataType="double", optype="continuous"), terms, None)


def add_sum(parent: ET.Element, terms: tuple[tuple[str, float], ...], start: float | None) -> None:
    """Append the expression of a weighted sum, added from left to right.

    Raises:
        ExportError: It is too long: each term is nested in the next.
    """
    if len(terms) > _MAX_TERMS:
        raise ExportError("pmml", f"a sum of {len(terms)} columns is nested too deep (at most {_MAX_TERMS})")
    found: ET.Element | None = None
    if start is not None:
        found = ET.Element("Constant", dataType="double")
        found.text = repr(float(start))
    for name, factor in terms:
        product = ET.Element("Apply", {"function": "*"})
        xml.child(product, "FieldRef", field=name)
        xml.child(product, "Constant", repr(float(factor)), dataType="double")
        if found is None:
            found = product
        else:
            total = ET.Element("Apply", {"function": "+"})
            total.extend((found, product))
            found = total
    assert found is not None
    parent.append(found)


def _rule_set(model: ET.Element, rules: RuleSet, conditions: list[Condition], writer: Predicates) -> None:
    found = xml.child(model, "RuleSet")
    if rules.default is not None:
        found.set("defaultScore", _score(rules.default))
    criterion = "weightedSum" if rules.policy is Policy.VOTE else "firstHit"
    xml.child(found, "RuleSelectionMethod", criterion=criterion)
    for index in rules.order:
        rule = rules.rules[index]
        one = xml.child(found, "SimpleRule", id=str(index), score=_score(rule.then), weight=repr(float(rule.weight)))
        _named(one, rule)
        writer.add(one, conditions[index])


def _named(parent: ET.Element, rule: Rule) -> None:
    """The name of a rule, where PMML has no place for it."""
    xml.child(parent, "Extension", name=RULE_NAME, value=rule.name)


def _tree(model: ET.Element, rules: RuleSet, conditions: list[Condition], writer: Predicates) -> None:
    root = xml.child(model, "Node", id="-1")
    if rules.default is not None:
        root.set("score", _score(rules.default))
    xml.child(root, "True")
    for index in rules.order:
        leaf = xml.child(root, "Node", id=str(index), score=_score(rules.rules[index].then))
        _named(leaf, rules.rules[index])
        writer.add(leaf, conditions[index])


def _scorecard(model: ET.Element, rules: RuleSet, conditions: list[Condition], writer: Predicates) -> None:
    parent = xml.child(model, "Characteristics")
    for index, rule in enumerate(rules.rules):
        one = xml.child(parent, "Characteristic", name=str(index))
        _named(one, rule)
        fires = xml.child(one, "Attribute")
        writer.add(fires, conditions[index])
        if isinstance(rule.then, LinearScore):
            add_sum(xml.child(fires, "ComplexPartialScore"), rule.then.terms, rule.then.intercept)
        else:
            fires.set("partialScore", _score(rule.then))
        xml.child(xml.child(one, "Attribute", partialScore="0.0"), "True")


def _score(outcome: Outcome) -> str:
    if isinstance(outcome, Number):
        return repr(float(outcome.value))
    assert isinstance(outcome, Label | Action)
    return str(outcome.value)
