"""Hold an ONNX file of rules to the evaluator: the same results, bit for bit, on boundary and on random rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.errors import ResourceError
from modelkit.progress import Progress, silent
from modelkit.rules.evaluate import Evaluation, Table, evaluate
from modelkit.rules.model import RuleSet
from modelkit.rules.samples import blocks, boundary_rows, boundary_values, random_rows
from modelkit.rules.table import row_of, row_text
from modelkit.runtime import make_session, run

if TYPE_CHECKING:
    import onnxruntime as ort

RANDOM_ROWS = 100_000
_BLOCK = 8192
_FEW = 2000  # rules; with more, boundary rows are sampled


@dataclass(frozen=True)
class Verified:
    """What was compared.

    Attributes:
        boundary: Rows with a value at, just below, or between thresholds.
        random: Random rows.
        all_boundaries: Whether every boundary value of every column was among them.
    """

    boundary: int
    random: int
    all_boundaries: bool


def run_rules(session: ort.InferenceSession, rules: RuleSet, table: Table) -> Evaluation:
    """Run an ONNX file of rules.

    Args:
        session: The file, loaded.
        rules: The rule set that it was made of.
        table: All columns of the set.
    """
    feeds = {column.name: np.ascontiguousarray(table[column.name]) for column in rules.columns}
    result, scores, rule_id = run(session, feeds, rules.name)
    if rules.is_numeric:
        return Evaluation(rule_id, None, result, scores)
    return Evaluation(rule_id, result, None, scores)


def first_difference(left: Evaluation, right: Evaluation) -> int | None:
    """Index of the first row whose results differ in any bit that counts; None where there is none."""
    differ = left.rule_id != right.rule_id
    if left.label is not None and right.label is not None:
        differ |= left.label != right.label
    for a, b in ((left.prediction, right.prediction), (left.scores, right.scores)):
        if a is not None and b is not None:
            wrong = ~((a == b) | (np.isnan(a) & np.isnan(b)))
            differ |= wrong.any(axis=1) if wrong.ndim == 2 else wrong
    return int(differ.argmax()) if differ.any() else None


def verify(
    rules: RuleSet, model: Path, *, random: int = RANDOM_ROWS, seed: int = 0, progress: Progress = silent
) -> Verified:
    """Compare a file with the evaluator.

    Args:
        rules: The rule set.
        model: The ONNX file that was made of it.
        random: Number of random rows.
        seed: Seed of the rows.
        progress: Told how many rows are done.

    Raises:
        ResourceError: A row is not computed as it should be.
    """
    session = make_session(model)
    rng = np.random.default_rng(seed)
    values = boundary_values(rules, declared=False)
    limit = 200_000 if len(rules.rules) <= _FEW else 20_000
    edges = boundary_rows(rules, rng, declared=False, limit=limit)
    count = len(next(iter(edges.values())))
    done = 0
    for start in range(0, count, _BLOCK):
        part = {name: each[start : start + _BLOCK] for name, each in edges.items()}
        _compare(session, rules, part)
        done += len(next(iter(part.values())))
        progress("verifying", done, count + random)
    for size in blocks(random, _BLOCK):
        # Alternately of all values and of those that columns declare, which reach more rules.
        declared = bool(done // _BLOCK % 2)
        table = random_rows(rules, size, rng, declared=declared, values=None if declared else values)
        _compare(session, rules, table)
        done += size
        progress("verifying", done, count + random)
    return Verified(count, random, sum(map(len, values.values())) <= count)


def _compare(session: ort.InferenceSession, rules: RuleSet, table: Table) -> None:
    expected = evaluate(rules, table)
    found = run_rules(session, rules, table)
    row = first_difference(expected, found)
    if row is not None:
        text = row_text(rules, row_of(table, row))
        raise ResourceError(
            f"the ONNX file gives {found.result[row]!a} by rule {found.rule_id[row]} where {expected.result[row]!a} "
            f"by rule {expected.rule_id[row]} is right, for {text}",
            "nothing was written; please report this rule set",
        )
