"""The fixed parts of the Python module that `modelkit.rules.export.python` writes: reading rows, and the policies."""

HEAD = '''"""Rules, written by modelkit; `decide(row)` applies them to one row. Needs nothing but Python 3.8 or newer.

As a program: `python THIS.py rows.csv` prints a line for each row of a csv file.
"""

import csv
import datetime
import sys
from typing import NamedTuple

nan = float("nan")
'''

TAIL = '''
def missing(value):
    """Whether there is no value: NaN, or the empty text."""
    return value != value or value == ""


def weighted(total, terms):
    """Add coefficient * value from left to right."""
    for factor, value in terms:
        total = factor * value if total is None else total + factor * value
    return total


def values_of(row):
    """The values of a row in the order of the columns: text for categories, floats for everything else."""
    return [value_of(row[name], kind) for name, kind in COLUMNS.items()]


def value_of(value, kind):
    """One value: dates in days, datetimes in seconds since 1970-01-01 (UTC), booleans 0.0 or 1.0."""
    if value is None or value == "" or value != value:
        return "" if kind == "category" else nan
    if kind == "category":
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")
        return value
    if isinstance(value, str) and kind == "boolean" and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    if isinstance(value, str) and kind in ("date", "datetime"):
        value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        seconds = (value - epoch) / datetime.timedelta(seconds=1)
        return seconds / 86400 if kind == "date" else seconds
    if isinstance(value, datetime.date):
        days = (value - datetime.date(1970, 1, 1)).days
        return float(days if kind == "date" else days * 86400)
    return float(value)


def main(path):
    """Apply the rules to a csv file and print a csv file of results."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(sys.stdout, lineterminator="\\n")
        writer.writerow(Result._fields[:3])
        for row in csv.DictReader(file):
            writer.writerow(decide(row)[:3])


if __name__ == "__main__":
    main(*sys.argv[1:])'''

_LABELS = '''class Result(NamedTuple):
    """What came of a row; rule_id is -1 and rule None where no rule decided."""

    rule_id: int
    rule: str
    label: object
    scores: dict


def result(rule, label, scores):
    return Result(rule, RULES[rule] if rule >= 0 else None, label, scores)
'''

_NUMBERS = '''class Result(NamedTuple):
    """What came of a row; rule_id is -1 and rule None where no rule decided; score is before clamping."""

    rule_id: int
    rule: str
    prediction: float
    score: float


def result(rule, score):
    return Result(rule, RULES[rule] if rule >= 0 else None, clamp(score), score)
'''

CLAMP = '''def clamp(value):
    """Keep a prediction within its bounds; NaN stays NaN."""
    return {0} if value < {0} else {1} if value > {1} else value
'''

_DOC = '''def decide(row):
    """Apply the rules to one row.

    Args:
        row: Mapping from the names in COLUMNS to values; None, NaN or "" where a value is missing.
    """
    values = values_of(row)
'''

_VOTE = """    scores = dict(SCORES)
    fired = list(rules(*values))
    for rule, label in fired:
        scores[label] += WEIGHTS[rule]
    label = {}
    voters = [rule for rule, voted in fired if voted == label]
    return result(max(voters, key=WEIGHTS.__getitem__) if voters else -1, label, scores)
"""

DECIDE = {
    "label": f"""{_LABELS}

{_DOC}    rule, label = next(rules(*values), (-1, default(*values)))
    scores = dict(SCORES)
    if label is not None:
        scores[label] = WEIGHTS[rule] if rule >= 0 else 1.0
    return result(rule, label, scores)
""",
    "number": f"""{_NUMBERS}

{_DOC}    return result(*next(rules(*values), (-1, default(*values))))
""",
    "vote": f"{_LABELS}\n\n{_DOC}" + _VOTE.format("max(scores, key=scores.get) if fired else default(*values)"),
    "vote_base": f"{_LABELS}\n\n{_DOC}" + _VOTE.format("max(scores, key=scores.get)"),
    "collect": f"""{_LABELS}

{_DOC}    fired = list(rules(*values))
    rule, label = fired[0] if fired else (-1, default(*values))
    scores = dict(SCORES)
    for _, action in fired or [(-1, label)]:
        if action is not None:
            scores[action] += 1.0
    return result(rule, label, scores)
""",
    "score": f"""{_NUMBERS}

{_DOC}    total = default(*values)
    best, largest = -1, -1.0
    for rule, value in rules(*values):
        total += value
        size = 0.0 if missing(value) else abs(value)
        if size > largest:
            best, largest = rule, size
    return result(best, total)
""",
}
"""What ``decide`` does for each kind of rule set; the class of results comes first."""
