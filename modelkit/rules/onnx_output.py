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
        """Bits taken apart: bool [N, count]."""
        nodes = self._nodes
        wide = nodes.add("Unsqueeze", words, nodes.constant([2], np.int64))
        bits = nodes.constant((np.int64(1) << np.arange(BITS, dtype=np.int64)).reshape(1, 1, BITS))
        marks = nodes.add("Equal", nodes.add("BitwiseAnd", wide, bits), bits)
        flat = nodes.add("Reshape", marks, nodes.constant([0, -1], np.int64))
        last = nodes.constant([count], np.int64)
        return nodes.add("Slice", flat, nodes.constant([0], np.int64), last, nodes.constant([1], np.int64))

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

    def _add_up(self, fired: str, values: str | np.ndarray, start: str | float) -> str:
        """Start + the values of the rules that fire, in their order: double [N, 1].

        Args:
            fired: bool [N, R].
            values: double [R], or the name of double [N, R].
            start: What the sum begins with: a number, or the name of double [N, 1].
        """
        nodes = self._nodes
        if isinstance(values, np.ndarray) and isinstance(start, float) and sums_are_exact([start, *values.tolist()]):
            total = nodes.add("MatMul", nodes.cast(fired, "DOUBLE"), nodes.constant(values.reshape(-1, 1)))
            return nodes.add("Add", total, nodes.constant(np.float64(start)))
        if isinstance(values, np.ndarray):
            parts = nodes.add("Mul", nodes.cast(fired, "DOUBLE"), nodes.constant(values))
        else:  # NaN times 0 is NaN
            parts = nodes.add("Where", fired, values, nodes.constant(np.float64(0.0)))
        if (
            start == 0.0
        ):  # nothing to begin with; adding it last turns a -0.0, which skipped rules may leave, into 0.0
            running = nodes.add("CumSum", parts, nodes.constant(np.int64(1)))
            last = self._slice(running, -1, np.iinfo(np.int64).max)
            return nodes.add("Add", last, nodes.constant(np.float64(0.0)))
        if isinstance(start, float):
            shape = nodes.add("Concat", self._inputs.count(), nodes.constant([1], np.int64), axis=0)
            start = nodes.add("Expand", nodes.constant(np.array([[start]])), shape)
        running = nodes.add("CumSum", nodes.join([start, parts]), nodes.constant(np.int64(1)))
        return self._slice(running, -1, np.iinfo(np.int64).max)

    def _slice(self, value: str, first: int, stop: int) -> str:
        """Columns [first, stop)."""
        nodes = self._nodes
        bounds = [nodes.constant([bound], np.int64) for bound in (first, stop, 1)]
        return nodes.add("Slice", value, *bounds)

    def _largest(self, among: str, sizes: np.ndarray | str, order: Sequence[int]) -> None:
        """The output rule_id: of the rules marked in bool [N, R] the first with the largest size, -1 for none.

        Args:
            among: The marked rules, laid out in an order.
            sizes: Their sizes, of at least 0 where they are computed: double [R], or the name of double [N, R].
            order: The order; rules of equal size must come in that of the file.
        """
        nodes = self._nodes
        if isinstance(sizes, np.ndarray):  # ranks are small whole numbers, which float holds
            ranks = np.empty(len(sizes), np.float32)
            ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes), 0, -1)
            size = nodes.add("Mul", nodes.cast(among, "FLOAT"), nodes.constant(ranks))
            nothing = nodes.constant(np.float32(0.0))
        else:
            size = nodes.add("Where", among, sizes, nodes.constant(np.float64(-1.0)))
            nothing = nodes.constant(np.float64(-1.0))
        best = nodes.add("ArgMax", size, axis=1, keepdims=1)
        none = nodes.add("Equal", nodes.add("GatherElements", size, best, axis=1), nothing)
        best = nodes.add("Where", none, nodes.constant(np.int64(len(order))), best)
        self._rule_id(nodes.flat(best), order)

    def _vote(self) -> None:
        """Rules are laid out by their labels, so that those of a label lie side by side, in the order of the file."""
        rules, nodes = self._rules, self._nodes
        order = sorted(range(len(rules.rules)), key=lambda i: self._class[i])
        weights, classes = np.array([rules.rules[i].weight for i in order]), self._class[order]
        fired = self._fired(self._matcher.words(order), len(order))
        base = dict(rules.base)
        starts = [float(base.get(label, 0.0)) for label in rules.classes]
        if all(sums_are_exact([s, *weights[classes == c].tolist()]) for c, s in enumerate(starts)):
            matrix = np.zeros((len(weights), len(starts)))
            matrix[np.arange(len(weights)), classes] = weights
            total = nodes.add("MatMul", nodes.cast(fired, "DOUBLE"), nodes.constant(matrix))
            scores = nodes.add("Add", total, nodes.constant(np.array(starts)), name="scores")
        else:
            edges = np.searchsorted(classes, np.arange(len(starts) + 1)).tolist()
            parts = []
            for start, first, stop in zip(starts, edges, edges[1:], strict=False):
                parts.append(self._add_up(self._slice(fired, first, stop), weights[first:stop], start))
            scores = nodes.add("Concat", *parts, axis=1, name="scores")
        chosen = nodes.add("ArgMax", scores, axis=1, keepdims=1)
        if not rules.base:
            some = nodes.add("ReduceMax", nodes.cast(fired, "UINT8"), nodes.constant([1], np.int64), keepdims=1)
            none = nodes.add("Equal", some, nodes.constant(np.uint8(0)))
            chosen = nodes.add("Where", none, nodes.constant(np.int64(self._default)), chosen)
        self._labels(nodes.flat(chosen))
        mine = nodes.add("Equal", nodes.constant(classes[None, :]), chosen)
        self._largest(nodes.add("And", fired, mine), weights, order)

    def _score(self) -> None:
        rules, nodes = self._rules, self._nodes
        outcomes = [rule.then for rule in rules.rules]
        default = rules.default
        start: str | float = default.value if isinstance(default, Number) else 0.0
        if isinstance(default, LinearScore):
            start = nodes.column(self._values([default], self._zeros()))
        order = range(len(outcomes))
        fired = self._fired(self._matcher.words(order), len(outcomes))
        if any(isinstance(outcome, LinearScore) for outcome in outcomes):
            matrix = self._linear_values(outcomes)
            size = nodes.add("Abs", matrix)
            size = nodes.add("Where", nodes.add("IsNaN", size), nodes.constant(np.float64(0.0)), size)
            total = self._add_up(fired, matrix, start)
            self._largest(fired, size, order)
        else:
            values = np.array([_start(outcome) for outcome in outcomes])
            total = self._add_up(fired, values, start)
            self._largest(fired, np.abs(values), order)
        self._predict(nodes.flat(total))

    def _zeros(self) -> str:
        return self._nodes.add("Expand", self._nodes.constant(np.zeros(1, np.int64)), self._inputs.count())

    def _linear_values(self, outcomes: Sequence[Outcome]) -> str:
        """What each rule would add: double [N, R]."""
        nodes = self._nodes
        shape = nodes.add("Concat", self._inputs.count(), nodes.constant([len(outcomes)], np.int64), axis=0)
        value = nodes.add("Expand", nodes.constant(np.array([[_start(o) for o in outcomes]])), shape)
        for k in range(max(len(o.terms) for o in outcomes if isinstance(o, LinearScore))):
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
        counts = nodes.add("MatMul", nodes.cast(self._fired(words, len(order)), "DOUBLE"), nodes.constant(matrix))
        extra = np.zeros((len(order) + 1, len(rules.classes)))
        if self._default >= 0:
            extra[-1, self._default] = 1.0
        nodes.add("Add", counts, nodes.pick(extra, position), name="scores")


def _start(outcome: Outcome | None) -> float:
    if isinstance(outcome, LinearScore):
        return outcome.intercept
    return outcome.value if isinstance(outcome, Number) else float("nan")


def sums_are_exact(values: Sequence[float]) -> bool:
    """Whether doubles hold every sum of some of these values exactly, so that their order does not matter."""
    parts = [Fraction(value) for value in values]
    grid = max((part.denominator for part in parts), default=1)
    return sum(abs(part) for part in parts) * grid <= 2**53
