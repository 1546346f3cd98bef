"""Tables for the tests of automl: small, mixed, with gaps."""

import csv

import numpy as np
from sklearn.datasets import load_iris

KINDS = ("red", "green", "blue", "rare one")


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def iris(path, rows=slice(None)):
    data = load_iris()
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
    body = [[*map(float, x), data.target_names[y]] for x, y in zip(data.data, data.target, strict=True)]
    return write_csv(path, names, body[rows])


def mixed(path, count=240, seed=0, target="churn", regression=False):
    """Numbers, categories, booleans, dates and times, each with gaps, and an identifier and a constant."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        size = float(np.round(rng.normal(10, 4), 3))
        color = KINDS[min(3, int(rng.exponential(0.8)))]
        flag = bool(rng.random() < 0.5)
        day = f"20{rng.integers(10, 25):02d}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"
        at = f"{day}T{rng.integers(0, 24):02d}:30:00"
        score = size / 4 + 2 * (color == "red") - 1.5 * flag + rng.normal(0, 0.7)
        label = round(float(score), 4) if regression else ("yes" if score > 3 else "no")
        row = [f"id{number:04d}", size, color, str(flag).lower(), day, at, "same", label]
        for place in range(1, 6):
            if rng.random() < 0.08:
                row[place] = ""
        rows.append(row)
    return write_csv(path, ["key", "size", "color", "flag", "day", "at", "fixed", target], rows)
