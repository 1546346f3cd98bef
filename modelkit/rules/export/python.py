"""A rule set as a Python module that needs nothing but Python: a function of a row, and csv files as a program."""

from __future__ import annotations

import keyword
from collections.abc import Mapping

from modelkit.rules.conditions import And, Between, Compare, Condition, In, IsMissing, Linear, Not, Operator, Or
from modelkit.rules.export.errors import one_line, require_encodable
from modelkit.rules.export.names import variables
from modelkit.rules.export.python_parts import CLAMP, DECIDE, HEAD, TAIL
from modelkit.rules.model import Action, Label, LinearScore, Number, Outcome, RuleSet

_TAKEN = frozenset(
    {*keyword.kwlist, *keyword.softkwlist, "missing", "nan", "weighted", "float", "none", "true", "false"}
)
_LONG = 40  # terms beyond which a sum is computed by a loop: Python's parser counts nested operators


def to_python(rules: RuleSet) -> str:
    """Write a module whose ``decide(row)`` gives what `modelkit.rules.evaluate` gives.

    Args:
        rules: The rule set; every one can be written.

    Raises:
        ExportError: Some text is no valid Unicode.
    """
    require_encodable(rules, "python")
    names = variables([column.name for column in rules.columns], _TAKEN)
    parts = [HEAD, _about(rules), _columns(rules), _table(rules), _rules(rules, names), _default(rules, names)]
    return "\n\n".join([*parts, _decide(rules, names), TAIL]).replace("\n\n\n\n", "\n\n\n") + "\n"


def number(value: float) -> str:
    """A double as Python writes it; it is read back to the same bits."""
    return repr(float(value))


def condition_code(condition: Condition, names: Mapping[str, str]) -> str:
    """A condition as a Python expression.

    Missing numbers are NaN, with which every comparison but ``!=`` is false, and missing text is "": so negation is
    Python's own, and only ``!=`` and ``not in`` must ask whether there is a value.
    """
    if isinstance(condition, And | Or):
        if not condition.terms:
            return "True" if isinstance(condition, And) else "False"
        word = " and " if isinstance(condition, And) else " or "
        return word.join(_inner(term, names) for term in condition.terms)
    if isinstance(condition, Not):
        return f"not ({condition_code(condition.term, names)})"
    if isinstance(condition, Linear):
        return _linear_code(condition, names)
    name = names[condition.column]
    if isinstance(condition, IsMissing):
        return f"missing({name})"
    if isinstance(condition, Between):
        return f"{number(condition.low)} <= {name} <= {number(condition.high)}"
    if isinstance(condition, In):
        return _in_code(name, condition)
    assert isinstance(condition, Compare)
    if condition.op is Operator.NE:
        return _in_code(name, In(condition.column, (condition.value,), negated=True))
    sign = "==" if condition.op is Operator.EQ else str(condition.op)
    return f"{name} {sign} {_literal(condition.value)}"


def _inner(condition: Condition, names: Mapping[str, str]) -> str:
    """A condition among others: in brackets where it joins several; of one alone the inner one has them."""
    code = condition_code(condition, names)
    return f"({code})" if isinstance(condition, And | Or) and len(condition.terms) > 1 else code


def _literal(value: float | str) -> str:
    return repr(value) if isinstance(value, str) else number(value)


def _in_code(name: str, atom: In) -> str:
    values = [_literal(value) for value in atom.values]
    if not atom.negated:
        return f"{name} in ({', '.join(values)}{',' if len(values) == 1 else ''})" if values else "False"
    text = any(isinstance(value, str) for value in atom.values)
    if text:
        listed = ", ".join(['""', *values])
        return f"{name} not in ({listed})"
    same = f"{name} != {values[0]}" if len(values) == 1 else f"{name} not in ({', '.join(values)})"
    return f"(not missing({name}) and {same})" if values else f"not missing({name})"


def _sum_code(terms: tuple[tuple[str, float], ...], names: Mapping[str, str], start: float | None = None) -> str:
    """A weighted sum, added from left to right."""
    first = [] if start is None else [number(start)]
    if len(terms) > _LONG:
        pairs = ", ".join(f"({number(factor)}, {names[name]})" for name, factor in terms)
        return f"weighted({first[0] if first else None}, ({pairs}))"
    return " + ".join([*first, *(f"{number(factor)} * {names[name]}" for name, factor in terms)])


def _linear_code(atom: Linear, names: Mapping[str, str]) -> str:
    total = _sum_code(atom.terms, names)
    if atom.op is not Operator.NE:
        sign = "==" if atom.op is Operator.EQ else str(atom.op)
        return f"{total} {sign} {number(atom.bound)}"
    there = " and ".join(f"not missing({name})" for name in dict.fromkeys(names[name] for name, _ in atom.terms))
    return f"({there} and {total} != {number(atom.bound)})"


def _about(rules: RuleSet) -> str:
    lines = [f"# {one_line(rules.name)}", *([f"# {one_line(rules.description)}"] if rules.description else [])]
    return "\n".join(lines)


def _columns(rules: RuleSet) -> str:
    lines = []
    for column in rules.columns:
        about = ", ".join(part for part in (column.unit, column.description) if part)
        lines.append(f"    {column.name!r}: {str(column.type)!r},{f'  # {one_line(about)}' if about else ''}")
    return "\n".join(["COLUMNS = {", *lines, "}"])


def _table(rules: RuleSet) -> str:
    """The constants that the policy needs."""
    lines = [f"POLICY = {str(rules.policy)!r}"]
    lines += ["RULES = [", *(f"    {rule.name!r}," for rule in rules.rules), "]"]
    if not rules.is_numeric:
        lines += [f"WEIGHTS = [{', '.join(number(rule.weight) for rule in rules.rules)}]"]
        base = dict(rules.base)
        scores = ", ".join(f"{label!r}: {number(base.get(label, 0.0))}" for label in rules.classes)
        lines += [f"SCORES = {{{scores}}}"]
    return "\n".join(lines)


def _rules(rules: RuleSet, names: Mapping[str, str]) -> str:
    lines = [
        f"def rules({', '.join(names.values())}):",
        '    """Index and outcome of each rule that fires, in the order in which they are asked."""',
    ]
    for index in rules.order:
        rule = rules.rules[index]
        about = f": {one_line(rule.description)}" if rule.description else ""
        lines += [
            f"    # {one_line(rule.name)}{about}",
            f"    if {condition_code(rule.when, names)}:",
            f"        yield {index}, {_outcome(rule.then, names)}",
        ]
    return "\n".join(["", *lines])


def _outcome(outcome: Outcome, names: Mapping[str, str]) -> str:
    if isinstance(outcome, Label | Action):
        return repr(outcome.value)
    if isinstance(outcome, Number):
        return number(outcome.value)
    assert isinstance(outcome, LinearScore)
    return _sum_code(outcome.terms, names, outcome.intercept)


def _default(rules: RuleSet, names: Mapping[str, str]) -> str:
    if rules.default is None:
        value = "None" if not rules.is_numeric else "0.0" if rules.policy == "score" else "nan"
    else:
        value = _outcome(rules.default, names)
    lines = [
        f"def default({', '.join(names.values())}):",
        '    """The outcome where no rule decides."""',
        f"    return {value}",
    ]
    return "\n".join(["", *lines])


def _decide(rules: RuleSet, names: Mapping[str, str]) -> str:
    kind = str(rules.policy) if not rules.picks_one else "number" if rules.is_numeric else "label"
    kind = "vote_base" if kind == "vote" and rules.base else kind
    code = DECIDE[kind]
    return "\n" + code + "\n\n\n" + _clamp(rules)


def _clamp(rules: RuleSet) -> str:
    if not rules.is_numeric:
        return ""
    low = rules.clamp.low if rules.clamp is not None else None
    high = rules.clamp.high if rules.clamp is not None else None
    lower = '-float("inf")' if low is None else number(low)
    upper = 'float("inf")' if high is None else number(high)
    return CLAMP.format(lower, upper)
