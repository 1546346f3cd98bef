"""A rule set as one SQL query; SQLite 3.35 or newer runs it to the same doubles.

Missing is NULL (and, of categories, the empty text). Each step of the query adds columns to those before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelkit.rules.columns import ColumnType
from modelkit.rules.export.errors import ExportError, one_line, require_encodable
from modelkit.rules.export.sql_conditions import ROW, Conditions, joined
from modelkit.rules.export.sql_literals import double, name, string
from modelkit.rules.model import Action, Label, LinearScore, Number, Outcome, Policy, RuleSet

TABLE = "input"
_STEP = 200  # summands of one step; SQLite counts how deep a sum is nested


def to_sql(rules: RuleSet, *, table: str = TABLE) -> str:
    """Write a query that gives ``rule_id``, ``label`` or ``prediction``, and scores, then all columns of the table.

    The result has NULL for no label and for NaN. Scores are there with the policies `vote` and `collect`, where a
    weight is not 1, and before clamping. A name that a column of the input has already gets an underscore.

    Args:
        rules: The rule set.
        table: Name of the table or view with the rows.

    Raises:
        ExportError: Two columns differ in upper and lower case only; text holds a NUL; a sum is too long.
    """
    require_encodable(rules, "sql", "\0")
    return "\n".join([*_comments(rules), _Query(rules, name(table)).text() + ";"]) + "\n"


def _comments(rules: RuleSet) -> list[str]:
    about = one_line(rules.name) + (f": {one_line(rules.description)}" if rules.description else "")
    found = [f"-- {about}", f"-- For SQLite 3.35 or newer. Policy: {rules.policy}."]
    for column in rules.columns:
        if column.type is ColumnType.DATE:
            how = "in days since 1970-01-01: julianday(text) - 2440587.5"
        elif column.type is ColumnType.DATETIME:
            how = "in seconds since 1970-01-01, UTC: unixepoch(text)"
        else:
            continue
        found.append(f"-- {one_line(column.name)} is {how}")
    return found


class _Query:
    """The steps of the query; each adds columns to those of the one before."""

    def __init__(self, rules: RuleSet, table: str) -> None:
        self._rules, self._conditions = rules, Conditions(rules.column)
        self._taken: set[str] = set()
        for column in rules.columns:
            if column.name.lower() in self._taken:
                raise ExportError("sql", f"'{one_line(column.name)}' is another column's name but for upper case")
            self._taken.add(column.name.lower())
        self._when = [self._conditions.text(rule.when) for rule in rules.rules]
        self._source, self._steps = table, list[str]()
        self._rule_id = self._free("rule_id")
        self._result = self._free("prediction" if rules.is_numeric else "label")
        self._scores = [self._free(f"score of {label}") for label in rules.classes]

    def _free(self, wanted: str) -> str:
        """A name that no column has."""
        while wanted.lower() in self._taken:
            wanted += "_"
        self._taken.add(wanted.lower())
        return wanted

    def text(self) -> str:
        """The whole query."""
        policy = self._rules.policy
        if policy is Policy.SCORE:
            last = self._score()
        elif policy is Policy.VOTE:
            last = self._vote()
        else:
            self._step({self._rule_id: self._chain((self._when[i], i) for i in self._rules.order)})
            last = self._predict() if self._rules.is_numeric else self._labelled()
        steps = ",\n".join(self._steps)
        return f"WITH {steps}\n{self._select(last)}" if steps else self._select(last)

    def _step(self, columns: Mapping[str, str]) -> None:
        step = f"step_{len(self._steps) + 1}"
        self._steps.append(f"{step} AS MATERIALIZED (\n{self._select(columns)}\n)")
        self._source = step

    def _select(self, columns: Mapping[str, str]) -> str:
        # The table may have more columns than the rules. Of equal names SQLite takes the first for the later steps,
        # so the own ones come first.
        listed = [*(f"{text} AS {name(each)}" for each, text in columns.items()), f"{ROW}.*"]
        return "SELECT\n  " + ",\n  ".join(listed) + f"\nFROM {self._source} AS {ROW}"

    def _chain(self, cases: Iterable[tuple[str, int]]) -> str:
        """The index of the first rule whose condition holds."""
        names = [one_line(rule.name) for rule in self._rules.rules]
        lines = [f"    WHEN {when} THEN {index} -- {names[index]}" for when, index in cases]
        return "\n".join(["CASE", *lines, "    ELSE -1", "  END"])

    def _by_rule(self, values: Mapping[int, str], otherwise: str) -> str:
        """What belongs to the rule that decided; -1 is the default."""
        if not values:
            return otherwise
        lines = [f"    WHEN {index} THEN {value}" for index, value in values.items()]
        case = f"CASE {ROW}.{name(self._rule_id)}"
        return "\n".join([case, *lines, f"    ELSE {otherwise}", "  END"])

    def _labelled(self) -> dict[str, str]:
        """Label and scores where `_rule_id` is known."""
        rules = self._rules
        labels = {i: _label(rule.then) for i, rule in enumerate(rules.rules)}
        labels |= {} if rules.default is None else {-1: _label(rules.default)}
        found = {self._result: self._by_rule(labels, "NULL")}
        if rules.policy is Policy.COLLECT:
            return found | {
                column: self._by_rule(
                    {-1: "1.0"} if labels.get(-1) == _literal(label) else {}, self._count(_literal(label))
                )
                for column, label in zip(self._scores, rules.classes, strict=True)
            }
        if any(rule.weight != 1 for rule in rules.rules):
            weights = {i: double(rule.weight) for i, rule in enumerate(rules.rules)} | {-1: "1.0"}
            for column, label in zip(self._scores, rules.classes, strict=True):
                mine = {i: weights[i] for i, given in labels.items() if given == _literal(label)}
                found[column] = self._by_rule(mine, "0.0")
        return found

    def _count(self, label: str) -> str:
        """How many rules fire for a label."""
        whens = [when for when, rule in zip(self._when, self._rules.rules, strict=True) if _label(rule.then) == label]
        return joined([f"CASE WHEN {when} THEN 1.0 ELSE 0.0 END" for when in whens], " + ") or "0.0"

    def _predict(self) -> dict[str, str]:
        """The number of the rule that decided."""
        rules = self._rules
        values = {i: self._number(rule.then) for i, rule in enumerate(rules.rules)}
        values |= {} if rules.default is None else {-1: self._number(rules.default)}
        return self._clamped(self._by_rule(values, "NULL"))

    def _clamped(self, text: str) -> dict[str, str]:
        """The prediction of a number."""
        clamp = self._rules.clamp
        if clamp is None:
            return {self._result: text}
        score = self._free("score")
        self._step({score: text})
        value = f"{ROW}.{name(score)}"
        cases = [] if clamp.low is None else [f"WHEN {value} < {double(clamp.low)} THEN {double(clamp.low)}"]
        cases += [] if clamp.high is None else [f"WHEN {value} > {double(clamp.high)} THEN {double(clamp.high)}"]
        return {self._result: f"CASE {' '.join(cases)} ELSE {value} END" if cases else value}

    def _number(self, outcome: Outcome) -> str:
        if isinstance(outcome, LinearScore):
            return self._conditions.sum(outcome.terms, outcome.intercept)
        assert isinstance(outcome, Number)
        return double(outcome.value)

    def _added(self, start: str, parts: Sequence[tuple[str, str]], about: str) -> str:
        """A sum in order of what fires; long ones are added up in steps."""
        for begin in range(0, len(parts), _STEP):
            if begin:
                column = self._free(f"{about}, first {begin}")
                self._step({column: start})
                start = f"{ROW}.{name(column)}"
            some = parts[begin : begin + _STEP]
            start = "\n    + ".join([start, *(f"CASE WHEN {when} THEN {value} ELSE 0.0 END" for when, value in some)])
        return start

    def _vote(self) -> dict[str, str]:
        rules, base = self._rules, dict(self._rules.base)
        sums = {}
        for column, label in zip(self._scores, rules.classes, strict=True):
            parts = [
                (when, double(rule.weight))
                for when, rule in zip(self._when, rules.rules, strict=True)
                if _label(rule.then) == _literal(label)
            ]
            sums[column] = self._added(double(base.get(label, 0.0)), parts, column)
        self._step(sums)
        self._step({self._result: self._best()})
        label = f"{ROW}.{name(self._result)}"
        order = sorted(range(len(rules.rules)), key=lambda i: -rules.rules[i].weight)
        cases = ((f"{label} = {_label(rules.rules[i].then)} AND ({self._when[i]})", i) for i in order)
        return {self._rule_id: self._chain(cases)}

    def _best(self) -> str:
        """The label of the largest score, of equals the first."""
        scores = [f"{ROW}.{name(column)}" for column in self._scores]
        cases = []
        for score, label in zip(scores, self._rules.classes, strict=True):
            least = [f"{score} >= {other}" for other in scores if other != score]
            cases.append(f"    WHEN {joined(least, ' AND ') or '1 = 1'} THEN {_literal(label)}")
        case = "\n".join(["CASE", *cases, "  END"])
        if self._rules.base:
            return case
        default = "NULL" if self._rules.default is None else _label(self._rules.default)
        fired = joined([f"({when})" for when in self._when], " OR ")
        return f"CASE WHEN NOT COALESCE({fired}, 1 = 0) THEN {default} ELSE {case} END"

    def _score(self) -> dict[str, str]:
        rules = self._rules
        values = [self._number(rule.then) for rule in rules.rules]
        start = "0.0" if rules.default is None else self._number(rules.default)
        parts = list(zip(self._when, values, strict=True))
        found = self._clamped(self._added(start, parts, "score"))
        return found | {self._rule_id: self._largest(values)}

    def _largest(self, values: Sequence[str]) -> str:
        """The rule that adds the largest number, whatever its sign."""
        outcomes = [rule.then for rule in self._rules.rules]
        sizes = [abs(outcome.value) for outcome in outcomes if isinstance(outcome, Number)]
        if len(sizes) == len(outcomes):
            order = sorted(range(len(outcomes)), key=lambda i: -sizes[i])
            return self._chain((self._when[i], i) for i in order)
        rows = [
            f"({index}, CASE WHEN {when} THEN COALESCE(ABS({value}), 0.0) END)"
            for index, (when, value) in enumerate(zip(self._when, values, strict=True))
        ]
        listed = ",\n      ".join(rows)
        best = "SELECT column1 FROM sizes WHERE column2 IS NOT NULL ORDER BY column2 DESC, column1 LIMIT 1"
        return f"COALESCE((WITH sizes AS (VALUES\n      {listed}\n    ) {best}), -1)"


def _label(outcome: Outcome) -> str:
    assert isinstance(outcome, Label | Action)
    return _literal(outcome.value)


def _literal(label: str | int) -> str:
    return string(label) if isinstance(label, str) else str(label)
