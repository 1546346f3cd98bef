"""The output side of the ONNX file: what each policy makes of the rules that fire."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from modelkit.rules.model import LinearScore, Number, Outcome, Policy, RuleSet
from modelkit.rules.onnx_input import Inputs
from modelkit.rules.onnx_match import BITS, Matcher
from modelkit.rules.onnx_nodes import Nodes


class Outputs:
    """Makes the graph's outputs.

    Args:
        rules: The rule set.
        inputs: The graph's input side.
        matcher: Gives the bits of rules that fire.
        nodes: The graph.
    """

    def __init__(self, rules: RuleSet, inputs: Inputs, matcher: Matcher, nodes: Nodes) -> None:
        self._rules, self._inputs, self._matcher, self._nodes = rules, inputs, matcher, nodes
        column = {label: i for i, label in enumerate(rules.classes)}
        self._class = np.array([column.get(getattr(rule.then, "value", None), -1) for rule in rules.rules])  # type: ignore[arg-type]
        self._default = -1 if rules.default is None else column.get(getattr(rules.default, "value", None), -1)  # type: ignore[arg-type]

    def make(self) -> None:
        """Add label or prediction, scores and rule_id."""
        policy = self._rules.policy
        if policy is Policy.VOTE:
            self._vote()
        elif policy is Policy.SCORE:
            self._score()
        elif policy is Policy.COLLECT:
            self._collect()
        else:
            self._pick()

    def _first(self, words: str, order: Sequence[int]) -> str:
        """Position in the order of the first rule that fires, the number of rules where none does: int64 [N, 1]."""
        nodes = self._nodes
        zero = nodes.constant(np.int64(0))
        some = nodes.cast(nodes.add("Not", nodes.add("Equal", words, zero)), "UINT8")
        word = nodes.add("ArgMax", some, axis=1, keepdims=1)
        value = nodes.add("GatherElements", words, word, axis=1)
        # The lowest bit alone is a power of two, which doubles hold exactly, and its logarithm is far from any half.
        lowest = nodes.cast(nodes.add("BitwiseAnd", value, nodes.add("Neg", value)), "DOUBLE")
        log = nodes.add("Div", nodes.add("Log", lowest), nodes.constant(np.log(2.0)))
        none = nodes.add("Equal", value, zero)
        bit = nodes.cast(nodes.add("Where", none, nodes.constant(0.0), nodes.add("Round", log)), "INT64")
        position = nodes.add("Add", nodes.add("Mul", word, nodes.constant(np.int64(BITS))), bit)
        return nodes.add("Where", none, nodes.constant(np.int64(len(order))), position)

    def _fired(self, words: str, count: int) -> str:
        """Bits taken apart: bool [count, N]. Rules are rows, so that sums over them go along memory as it lies."""
        nodes = self._nodes
        wide = nodes.add("Unsqueeze", nodes.add("Transpose", words, perm=[1, 0]), nodes.constant([1], np.int64))
        bits = nodes.constant((np.int64(1) << np.arange(BITS, dtype=np.int64)).reshape(1, BITS, 1))
        marks = nodes.add("Equal", nodes.add("BitwiseAnd", wide, bits), bits)
        rows = nodes.constant([-(-count // BITS) * BITS], np.int64)
        flat = nodes.add("Reshape", marks, nodes.add("Concat", rows, self._inputs.count(), axis=0), allowzero=1)
        return self._rows(flat, 0, count)

    def _rows(self, value: str, first: int, stop: int) -> str:
        """Rows [first, stop)."""
        bounds = [self._nodes.constant([bound], np.int64) for bound in (first, stop, 0)]
        return self._nodes.add("Slice", value, *bounds)

    def _rule_id(self, position: str, order: Sequence[int]) -> str:
        """The output rule_id out of a position in an order."""
        return self._nodes.add(
            "Gather", self._nodes.constant(np.array([*order, -1])), position, axis=0, name="rule_id"
        )

    def _labels(self, chosen: str) -> None:
        """The output label out of indices into the classes, -1 for none (int64 [N])."""
        rules, nodes = self._rules, self._nodes
        last: str | int = "" if rules.has_text_labels else -1
        table = np.array([*rules.classes, last, None], object)[:-1]
        if not rules.has_text_labels:
            table = table.astype(np.int64)
        nodes.add("Gather", nodes.constant(table), chosen, axis=0, name="label")

    def _pick(self) -> None:
        """First, priority, unique: all of a result stands in tables of rules, the last row being the default's."""
        rules, nodes = self._rules, self._nodes
        order = rules.order
        position = nodes.flat(self._first(self._matcher.words(order), order))
        self._rule_id(position, order)
        if rules.is_numeric:
            outcomes = [rules.rules[i].then for i in order]
            raw = self._values([*outcomes, rules.default], position)
            self._predict(raw)
            return
        classes = np.array([*self._class[list(order)], self._default])
        scores = np.zeros((len(order) + 1, len(rules.classes)))
        weights = [*(rules.rules[i].weight for i in order), 1.0]
        known = np.flatnonzero(classes >= 0)
        scores[known, classes[known]] = np.array(weights)[known]
        self._labels(nodes.pick(classes, position))
        nodes.add("Gather", nodes.constant(scores), position, axis=0, name="scores")

    def _predict(self, raw: str) -> None:
        """The outputs prediction and scores of a number for each row: double [N]."""
        nodes, clamp = self._nodes, self._rules.clamp
        nodes.add("Unsqueeze", raw, nodes.constant([1], np.int64), name="scores")
        value = raw
        if clamp is not None and clamp.low is not None:
            low = nodes.constant(np.float64(clamp.low))
            value = nodes.add("Where", nodes.add("Less", value, low), low, value)
        if clamp is not None and clamp.high is not None:
            high = nodes.constant(np.float64(clamp.high))
            value = nodes.add("Where", nodes.add("Greater", value, high), high, value)
        nodes.add("Identity", value, name="prediction")

    def _values(self, outcomes: Sequence[Outcome | None], position: str) -> str:
        """What the outcome at a position of a list gives: double [N]; linear scores term by term, as evaluated."""
        nodes = self._nodes
        value = nodes.pick(np.array([_start(outcome) for outcome in outcomes]), position)
        longest = max((len(o.terms) for o in outcomes if isinstance(o, LinearScore)), default=0)
        for k in range(longest):
            terms = [o.terms[k] if isinstance(o, LinearScore) and k < len(o.terms) else None for o in outcomes]
            column = np.array([self._inputs.numbers.index(term[0]) if term else 0 for term in terms])
            factor = np.array([term[1] if term else 0.0 for term in terms])
            picked = nodes.column(nodes.pick(column, position))
            x = nodes.flat(nodes.add("GatherElements", self._inputs.matrix, picked, axis=1))
            more = nodes.add("Add", value, nodes.add("Mul", x, nodes.pick(factor, position)))
            there = nodes.pick(np.array([term is not None for term in terms]), position)
            value = nodes.add("Where", there, more, value)
        return value

    def _add_up(self, fired: str, values: np.ndarray) -> str:
        """The values of the rules that fire, added in their order: double [1, N].

        Args:
            fired: bool [R, N].
            values: double [R].
        """
        nodes = self._nodes
        marks = nodes.cast(fired, "DOUBLE")
        if sums_are_exact(values.tolist()):
            return nodes.add("MatMul", nodes.constant(values.reshape(1, -1)), marks)
        return self._running(nodes.add("Mul", marks, nodes.constant(values.reshape(-1, 1))), len(values))

    def _running(self, parts: str, count: int) -> str:
        """The sum of so many rows, added from the first to the last: double [1, N]."""
        return self._rows(self._nodes.add("CumSum", parts, self._nodes.constant(np.int64(0))), count - 1, count)

    def _heaviest(self, fired: str, ranks: np.ndarray) -> str:
        """The largest rank of the rules that fire, 0 where none does: float [1, N].

        Args:
            fired: bool [R, N].
            ranks: float [R], whole numbers from 1 on; 0 for what is no rule.
        """
        nodes = self._nodes
        marked = nodes.add("Mul", nodes.cast(fired, "FLOAT"), nodes.constant(ranks.reshape(-1, 1)))
        return nodes.add("ReduceMax", marked, nodes.constant([0], np.int64), keepdims=1)

    def _rule_of_rank(self, rank: str, by_rank: Sequence[int]) -> None:
        """The output rule_id out of ranks [1, N], the largest being that of the first rule in a list, -1 for 0."""
        nodes = self._nodes
        index = nodes.cast(nodes.flat(rank, 0), "INT64")
        nodes.add("Gather", nodes.constant(np.array([-1, *reversed(by_rank)])), index, axis=0, name="rule_id")

    def _vote(self) -> None:
        """Rules are laid out by their labels, before those of each label what it has at the start."""
        rules, nodes = self._rules, self._nodes
        weights, base = np.array([rule.weight for rule in rules.rules]), dict(rules.base)
        by_rank = np.argsort(-weights, kind="stable").tolist()
        ranks = _ranks(by_rank)
        groups = [np.flatnonzero(self._class == c).tolist() for c in range(len(rules.classes))]
        slots = [slot for group in groups for slot in (None, *group)]
        fired = self._fired(self._matcher.words(slots), len(slots))
        scores, heaviest, first = [], [], 0
        for label, group in zip(rules.classes, groups, strict=True):
            rows = self._rows(fired, first, first + 1 + len(group))
            first += 1 + len(group)
            scores.append(self._add_up(rows, np.array([base.get(label, 0.0), *weights[group]])))
            heaviest.append(self._heaviest(rows, np.array([0.0, *ranks[group]], np.float32)))
        total = nodes.add("Transpose", nodes.stack(scores), perm=[1, 0], name="scores")
        chosen = nodes.add("ArgMax", total, axis=1, keepdims=0)
        rank = nodes.stack(heaviest)
        mine = nodes.add("GatherElements", rank, nodes.row(chosen), axis=0)
        self._rule_of_rank(mine, by_rank)
        if not rules.base:
            some = nodes.add("ReduceMax", rank, nodes.constant([0], np.int64), keepdims=0)
            none = nodes.add("Equal", some, nodes.constant(np.float32(0.0)))
            chosen = nodes.add("Where", none, nodes.constant(np.int64(self._default)), chosen)
        self._labels(chosen)

    def _score(self) -> None:
        rules, nodes = self._rules, self._nodes
        if any(isinstance(outcome, LinearScore) for outcome in rules.outcomes):
            self._score_linear()
            return
        start = 0.0 if rules.default is None else _start(rules.default)
        values = np.array([_start(rule.then) for rule in rules.rules])
        by_rank = np.argsort(-np.abs(values), kind="stable").tolist()
        fired = self._fired(self._matcher.words([None, *range(len(values))]), 1 + len(values))
        total = self._add_up(fired, np.array([start, *values]))
        ranks = np.array([0.0, *_ranks(by_rank)], np.float32)
        self._rule_of_rank(self._heaviest(fired, ranks), by_rank)
        self._predict(nodes.flat(total, 0))

    def _score_linear(self) -> None:
        """Sums in which what a rule adds depends on the row."""
        rules, nodes = self._rules, self._nodes
        zero = nodes.constant(np.float64(0.0))
        start = self._values([rules.default or Number(0.0)], self._zeros())
        order = range(len(rules.rules))
        fired = self._fired(self._matcher.words(order), len(order))
        matrix = self._linear_values([rule.then for rule in rules.rules])
        # NaN times 0 is NaN.
        parts = nodes.add("Where", fired, nodes.add("Transpose", matrix, perm=[1, 0]), zero)
        parts = nodes.stack([nodes.row(start), parts])
        total = self._running(parts, len(order) + 1)
        size = nodes.add("Abs", matrix)
        size = nodes.add("Where", nodes.add("IsNaN", size), zero, size)
        nothing = nodes.constant(np.float64(-1.0))
        size = nodes.add("Where", nodes.add("Transpose", fired, perm=[1, 0]), size, nothing)
        best = nodes.add("ArgMax", size, axis=1, keepdims=1)
        none = nodes.add("Equal", nodes.add("GatherElements", size, best, axis=1), nothing)
        self._rule_id(nodes.flat(nodes.add("Where", none, nodes.constant(np.int64(len(order))), best)), order)
        self._predict(nodes.flat(total, 0))

    def _zeros(self) -> str:
        return self._nodes.add("Expand", self._nodes.constant(np.zeros(1, np.int64)), self._inputs.count())

    def _linear_values(self, outcomes: Sequence[Outcome]) -> str:
        """What each rule would add: double [N, R]."""
        nodes = self._nodes
        shape = nodes.add("Concat", self._inputs.count(), nodes.constant([len(outcomes)], np.int64), axis=0)
        value = nodes.add("Expand", nodes.constant(np.array([[_start(o) for o in outcomes]])), shape)
        for k in range(max((len(o.terms) for o in outcomes if isinstance(o, LinearScore)), default=0)):
            terms = [o.terms[k] if isinstance(o, LinearScore) and k < len(o.terms) else None for o in outcomes]
            columns = [self._inputs.numbers.index(term[0]) if term else 0 for term in terms]
            factors = nodes.constant(np.array([term[1] if term else 0.0 for term in terms]))
            more = nodes.add("Add", value, nodes.add("Mul", nodes.columns(self._inputs.matrix, columns), factors))
            value = nodes.add("Where", nodes.constant(np.array([[term is not None for term in terms]])), more, value)
        return value

    def _collect(self) -> None:
        rules, nodes = self._rules, self._nodes
        order = range(len(rules.rules))
        words = self._matcher.words(order)
        position = nodes.flat(self._first(words, order))
        self._rule_id(position, order)
        classes = np.array([*self._class, self._default])
        self._labels(nodes.pick(classes, position))
        matrix = np.zeros((len(order), len(rules.classes)))
        matrix[np.arange(len(order)), self._class] = 1.0
        fired = nodes.cast(self._fired(words, len(order)), "DOUBLE")
        counts = nodes.add("Transpose", nodes.add("MatMul", nodes.constant(matrix.T), fired), perm=[1, 0])
        extra = np.zeros((len(order) + 1, len(rules.classes)))
        if self._default >= 0:
            extra[-1, self._default] = 1.0
        nodes.add("Add", counts, nodes.pick(extra, position), name="scores")


def _start(outcome: Outcome | None) -> float:
    if isinstance(outcome, LinearScore):
        return outcome.intercept
    return outcome.value if isinstance(outcome, Number) else float("nan")


def _ranks(by_rank: Sequence[int]) -> np.ndarray:
    """The rank of each rule: the length of the list for its first rule, 1 for its last; float32, exact to 2^24."""
    ranks = np.empty(len(by_rank), np.float32)
    ranks[list(by_rank)] = np.arange(len(by_rank), 0, -1)
    return ranks


def sums_are_exact(values: Sequence[float]) -> bool:
    """Whether doubles hold every sum of some of these values exactly, so that their order does not matter."""
    parts = [Fraction(value) for value in values]
    grid = max((part.denominator for part in parts), default=1)
    return sum(abs(part) for part in parts) * grid <= 2**53
