"""The strict reading of the PMML that `modelkit.rules.export.pmml` writes, as a rule set."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import ALWAYS, Compare, Condition, In, atoms
from modelkit.rules.export import xml
from modelkit.rules.export.errors import one_line
from modelkit.rules.export.pmml import NAMESPACE, RULE_NAME, TYPES
from modelkit.rules.export.pmml_predicates import PredicateReader
from modelkit.rules.model import Clamp, Label, LinearScore, Number, Outcome, Policy, Rule, RuleSet

_CRITERIA = {"firstHit": Policy.FIRST, "weightedSum": Policy.VOTE}
_KINDS = {name: type_ for type_, name in TYPES.items() if type_ is not ColumnType.INTEGER}
Terms = tuple[tuple[str, float], ...]


def from_pmml(text: str | bytes) -> tuple[RuleSet, tuple[int, ...]]:
    """Read a RuleSetModel, a TreeModel of leaves, or a Scorecard.

    Returns:
        The rule set, its rules in the order of the file, and the id of each (their ``rule_id`` when it was written).

    Raises:
        ConfigError: It is something else, or no well-formed XML.
    """
    try:
        return _Reader(xml.read(text, NAMESPACE)).rule_set()
    except (ValueError, KeyError) as error:
        raise xml.broken(one_line(str(error))) from error


class _Reader:
    def __init__(self, root: ET.Element) -> None:
        models = [each for each in root if each.tag in ("RuleSetModel", "TreeModel", "Scorecard")]
        if root.tag != "PMML" or len(models) != 1:
            raise ValueError("one RuleSetModel, TreeModel or Scorecard is expected")
        self._model = models[0]
        targets = [
            f.attrib["name"] for f in self._model.iterfind("MiningSchema/MiningField") if "usageType" in f.attrib
        ]
        if len(targets) != 1:
            raise ValueError("one target is expected")
        fields = {field.attrib["name"]: field for field in root.iterfind("DataDictionary/DataField")}
        self._target = fields.pop(targets[0])
        self._types = {name: _KINDS[field.attrib["dataType"]] for name, field in fields.items()}
        self._values = {name: [v.attrib["value"] for v in field.iterfind("Value")] for name, field in fields.items()}
        sums = {
            field.attrib["name"]: _sum(field[0])[1]
            for field in self._model.iterfind("LocalTransformations/DerivedField")
        }
        self._predicates = PredicateReader(self._types, sums)

    def rule_set(self) -> tuple[RuleSet, tuple[int, ...]]:
        """The rule set and the ids of its rules."""
        kind = self._model.tag
        policy, default, found = {"RuleSetModel": self._rules, "TreeModel": self._tree, "Scorecard": self._card}[
            kind
        ]()
        names = [self._name(element) for element, _, _ in found]
        rules = tuple(
            Rule(name, when, then, weight=float(element.get("weight", "1")))
            for name, (element, when, then) in zip(names, found, strict=True)
        )
        labels = tuple(self._label(each.attrib["value"]).value for each in self._target.iterfind("Value"))
        conditions = [when for _, when, _ in found]
        columns = tuple(self._column(name, conditions) for name in self._types)
        ids = tuple(int(element.get("id") or element.attrib["name"]) for element, _, _ in found)
        return RuleSet(columns, rules, policy, default, labels, clamp=self._clamp()), ids

    def _name(self, element: ET.Element) -> str:
        names = [e.attrib["value"] for e in element.iterfind("Extension") if e.get("name") == RULE_NAME]
        return names[0] if names else element.attrib["id"]

    def _label(self, text: str) -> Label:
        return Label(text if self._target.attrib["dataType"] == "string" else int(text))

    def _column(self, name: str, conditions: list[Condition]) -> Column:
        type_ = self._types[name]
        if not type_.is_text:
            return Column(name, type_, missing=True)
        named = [atom for when in conditions for atom in atoms(when) if isinstance(atom, Compare | In)]
        texts = [
            value
            for atom in named
            if atom.column == name
            for value in (atom.values if isinstance(atom, In) else (atom.value,))
            if isinstance(value, str)
        ]
        values = tuple(dict.fromkeys([*self._values[name], *texts])) or ("any",)
        return Column(name, type_, values=values, other=True, missing=True)

    def _clamp(self) -> Clamp | None:
        found = self._model.find("Targets/Target")
        if found is None:
            return None
        low, high = (None if found.get(name) is None else float(found.attrib[name]) for name in ("min", "max"))
        return Clamp(low, high)

    def _rules(self) -> tuple[Policy, Outcome | None, list[tuple[ET.Element, Condition, Outcome]]]:
        parent = self._model.find("RuleSet")
        method = None if parent is None else parent.find("RuleSelectionMethod")
        if parent is None or method is None:
            raise ValueError("the RuleSetModel has no RuleSet with a RuleSelectionMethod")
        score = parent.get("defaultScore")
        rules: list[tuple[ET.Element, Condition, Outcome]] = [
            (each, self._predicates.first(each), self._label(each.attrib["score"]))
            for each in parent.iterfind("SimpleRule")
        ]
        return _CRITERIA[method.attrib["criterion"]], None if score is None else self._label(score), rules

    def _tree(self) -> tuple[Policy, Outcome | None, list[tuple[ET.Element, Condition, Outcome]]]:
        root = self._model.find("Node")
        if root is None or self._predicates.first(root) != ALWAYS:
            raise ValueError("the tree's root must always hold")
        if self._model.get("missingValueStrategy") != "none":
            raise ValueError("the strategy for missing values must be none")
        score = root.get("score")
        leaves: list[tuple[ET.Element, Condition, Outcome]] = [
            (leaf, self._predicates.first(leaf), Number(float(leaf.attrib["score"])))
            for leaf in root.iterfind("Node")
        ]
        wanted = "returnNullPrediction" if score is None else "returnLastPrediction"
        if self._model.get("noTrueChildStrategy") != wanted:
            raise ValueError(f"the strategy where no child is true must be {wanted}")
        return Policy.FIRST, None if score is None else Number(float(score)), leaves

    def _card(self) -> tuple[Policy, Outcome | None, list[tuple[ET.Element, Condition, Outcome]]]:
        found: list[tuple[ET.Element, Condition, Outcome]] = []
        for each in self._model.iterfind("Characteristics/Characteristic"):
            attributes = each.findall("Attribute")
            if len(attributes) != 2 or self._predicates.first(attributes[1]) != ALWAYS:
                raise ValueError("a characteristic must have an attribute for its rule and one for all else")
            if float(attributes[1].attrib["partialScore"]) != 0:
                raise ValueError("where a rule does not fire its score must be 0")
            partial = attributes[0].find("ComplexPartialScore")
            then: Outcome
            if partial is None:
                then = Number(float(attributes[0].attrib["partialScore"]))
            else:
                start, terms = _sum(partial[0])
                then = LinearScore(start or 0.0, terms)
            found.append((each, self._predicates.first(attributes[0]), then))
        return Policy.SCORE, Number(float(self._model.get("initialScore", "0"))), found


def _sum(element: ET.Element) -> tuple[float | None, Terms]:
    """Constant (None for none) and terms of nested additions.

    Raises:
        ValueError: It is no weighted sum.
    """
    terms: list[tuple[str, float]] = []
    while element.tag == "Apply" and element.get("function") == "+" and len(element) == 2:
        terms.append(_product(element[1]))
        element = element[0]
    if element.tag == "Constant":
        return float(element.text or ""), tuple(reversed(terms))
    return None, (_product(element), *reversed(terms))


def _product(element: ET.Element) -> tuple[str, float]:
    parts = [each.tag for each in element]
    if element.tag != "Apply" or element.get("function") != "*" or parts != ["FieldRef", "Constant"]:
        raise ValueError("a weighted sum is expected")
    return element[0].attrib["field"], float(element[1].text or "")
