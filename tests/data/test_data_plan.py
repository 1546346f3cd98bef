"""Which axis counts samples."""

import numpy as np
import pytest

from modelkit.data.plan import plan_batches
from modelkit.runtime import TensorSpec


@pytest.mark.parametrize(
    ("shapes", "axes", "fixed"),
    [
        ([("batch", 3, 32, 32)], [0], None),
        ([(1, 3, 224, 224)], [0], 1),
        ([(8, 4), (8, 2)], [0, 0], 8),
        ([("?", 4)], [0], None),
        ([("s0", 4), (1, "s0", 8)], [0, 1], None),
        ([("batch", "seq"), ("seq",)], [0, None], None),
        ([("seq", "batch", 4), (2, "batch_size", 8)], [1, 1], None),
        ([("a_dynamic_axes_1", 4), ("b_dynamic_axes_1", 4)], [0, 0], None),
        ([("?", 4), ("?", 4), (1, 4)], [0, 0, None], None),
        ([("M", "K"), ("K", "N")], [0, None], None),
        ([("N", 4), ()], [0, None], None),
        ([("N", 4), (100, 4)], [0, None], None),
        ([(2, 4), (100, 4)], [0, None], 2),
        ([()], [None], None),
        ([], [], None),
    ],
)
def test_batch_axes(shapes, axes, fixed):
    plan = plan_batches([TensorSpec(f"i{n}", np.dtype(np.float32), s) for n, s in enumerate(shapes)])
    assert list(plan.axes.values()) == axes
    assert plan.fixed == fixed
