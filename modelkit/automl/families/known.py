"""The list of families, in the order in which their first guesses are tried."""

from __future__ import annotations

from modelkit.automl.export.estimators import can_export
from modelkit.automl.families import boosting, constant, forests, linear, mlp, neighbors, svm
from modelkit.automl.families.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        constant.FAMILY,
        linear.FAMILY,
        boosting.LIGHTGBM,
        forests.EXTRA_TREES,
        neighbors.FAMILY,
        svm.FAMILY,
        mlp.FAMILY,
        forests.RANDOM_FOREST,
        boosting.HISTOGRAM,
    )
}


def usable(rows: int, classes: int) -> list[Family]:
    """Families for a table of some size that can be written as ONNX."""
    return [
        family
        for family in FAMILIES.values()
        if family.least_rows <= rows <= family.most_rows and can_export(family.estimators[0 if classes else 1])
    ]
