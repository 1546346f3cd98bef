"""Datasets one after the other, some without labels, and what training makes of those."""

import numpy as np
import pytest
import torch

from modelkit.data.arrays import ArraysDataset
from modelkit.data.join import IGNORED, Joined
from modelkit.data.npyformat import HeldArray
from modelkit.runtime import TensorSpec
from modelkit.train.config import TrainOptions
from modelkit.train.objective import plan_objective

SPECS = [TensorSpec("x", np.dtype(np.float32), ("batch", 2))]


def dataset(count: int, first: int, labels: np.ndarray | None = None) -> ArraysDataset:
    arrays = {"x": np.arange(first, first + 2 * count, dtype=np.float32).reshape(count, 2)}
    if labels is not None:
        arrays["labels"] = labels
    held = {name: HeldArray(array) for name, array in arrays.items()}
    return ArraysDataset(held, SPECS, name="d", format="arrays", fingerprint=lambda: f"{first}")


def test_samples_come_in_any_order_from_both() -> None:
    joined = Joined([dataset(5, 0, np.arange(5)), dataset(3, 100)])
    assert joined.count == 8
    assert joined.labels is not None and joined.labels.tolist() == [0, 1, 2, 3, 4, *[IGNORED] * 3]
    whole = np.concatenate([batch.inputs["x"] for batch in joined.batches(4)])
    assert whole[:, 0].tolist() == [0, 2, 4, 6, 8, 100, 102, 104]
    order = np.array([7, 0, 6, 5, 1, 2])
    picked = np.concatenate([batch.inputs["x"] for batch in joined.subset(order).batches(6)])
    assert picked.tolist() == whole[order].tolist()
    other = Joined([dataset(5, 0, np.arange(5)), dataset(3, 200)])
    assert joined.fingerprint() != other.fingerprint()


def test_labels_that_may_be_negative_are_marked_by_no_number() -> None:
    joined = Joined([dataset(3, 0, np.array([-100, 5, 7])), dataset(2, 100)])
    assert joined.labels is not None and np.isnan(joined.labels).tolist() == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("labels", "loss", "rows"),
    [
        (np.array([0, 1, IGNORED, 2]), "cross_entropy", [0, 1, 3]),
        (np.array([0.5, np.nan, 2.5, 1.0]), "mse", [0, 2, 3]),
        (np.array([3, IGNORED, 5, 4]), "mse", [0, 2, 3]),
        (np.array([-3, IGNORED, 5, 4]), "mse", [0, 1, 2, 3]),
        (np.array([-3.0, IGNORED, 5, 4]), "mse", [0, 1, 2, 3]),
    ],
)
def test_only_labels_that_are_there_count(labels: np.ndarray, loss: str, rows: list[int]) -> None:
    random = np.random.default_rng(0)
    output = random.standard_normal((4, 3 if loss == "cross_entropy" else 1)).astype(np.float32)
    plan = plan_objective({"y": output}, labels, None, TrainOptions(loss=loss))  # type: ignore[arg-type]
    known = plan_objective({"y": output[rows]}, labels[rows], None, TrainOptions(loss=loss))  # type: ignore[arg-type]
    found = plan.of({"y": torch.from_numpy(output)}, torch.from_numpy(labels), {})
    wanted = known.of({"y": torch.from_numpy(output[rows])}, torch.from_numpy(labels[rows]), {})
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
