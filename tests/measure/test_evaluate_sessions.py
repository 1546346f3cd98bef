"""Quality and fidelity of real sessions over batches, padded ones included."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from modelkit.errors import DataError, ModelError, ResourceError
from modelkit.measure.evaluate import Remembered, _rows, evaluate_sessions, run_quality
from modelkit.measure.quality import Task
from modelkit.runtime import make_session


@dataclass
class Batch:
    inputs: dict
    labels: np.ndarray | None
    valid: int
    axes: dict = field(default_factory=lambda: {"x": 0})


def linear(weight, batch="N", outputs=("y",), kind=T.FLOAT, input_name="x"):
    """A session that computes x @ weight, once for each output name, times 1, 2, ..."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes, stored = [], [numpy_helper.from_array(np.asarray(weight, dtype), "w")]
    for index, name in enumerate(outputs):
        nodes.append(helper.make_node("MatMul", [input_name, "w"], [f"m{index}"]))
        stored.append(numpy_helper.from_array(np.array(index + 1, dtype), f"k{index}"))
        nodes.append(helper.make_node("Mul", [f"m{index}", f"k{index}"], [name]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(input_name, kind, [batch, len(weight)])],
        [helper.make_tensor_value_info(name, kind, [batch, len(weight[0])]) for name in outputs],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return make_session(model.SerializeToString())


def batches(data, labels, size, pad=True):
    for start in range(0, len(data), size):
        part, known = data[start : start + size], None if labels is None else labels[start : start + size]
        valid = len(part)
        if pad and valid < size:
            part = np.concatenate([part, np.full((size - valid, part.shape[1]), 7, part.dtype)])
            if known is not None:
                known = np.concatenate([known, known[:1].repeat(size - valid, axis=0)])
        yield Batch({"x": part}, known, valid)


RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(6, 4)).astype(np.float32)
NEAR = WEIGHT + RNG.normal(size=WEIGHT.shape).astype(np.float32) * 0.3
DATA = RNG.normal(size=(50, 6)).astype(np.float32)
LABELS = (DATA @ WEIGHT).argmax(axis=1)


@pytest.mark.parametrize("size", [1, 8, 50, 64])
def test_padded_batches_give_what_the_whole_set_gives(size):
    sessions = {"near": linear(NEAR, size), "original": linear(WEIGHT, size)}
    seen = []
    found = evaluate_sessions(
        sessions,
        batches(DATA, LABELS, size),
        reference="original",
        progress=lambda *arguments: seen.append(arguments),
        total=50,
    )
    assert list(found) == ["near", "original"]
    original, near = found["original"], found["near"]
    agreement = float(np.mean((DATA @ NEAR).argmax(axis=1) == LABELS))
    assert original.quality["accuracy"] == 1.0 and original.fidelity is None
    assert near.quality["accuracy"] == near.fidelity["top1_agreement"] == pytest.approx(agreement)
    assert near.fidelity["max_error"] == pytest.approx(np.abs(DATA @ NEAR - DATA @ WEIGHT).max(), rel=1e-4)
    assert near.task is Task.classification and near.rows == 50
    assert list(near.outputs) == ["y"]
    assert seen[-1] == ("evaluating", 50, 50)


def test_each_batch_runs_once_through_each_session():
    runs = {"a": 0, "b": 0}

    class Counting:
        def __init__(self, name):
            self.name, self.session = name, linear(WEIGHT)

        def run(self, *arguments):
            runs[self.name] += 1
            return self.session.run(*arguments)

        def __getattr__(self, name):
            return getattr(self.session, name)

    evaluate_sessions({"a": Counting("a"), "b": Counting("b")}, batches(DATA, LABELS, 10, pad=False), reference="a")
    assert runs == {"a": 5, "b": 5}


def test_without_labels_there_is_fidelity_only():
    found = evaluate_sessions({"a": linear(WEIGHT), "b": linear(WEIGHT)}, batches(DATA, None, 16), reference="a")
    assert found["b"].quality is None and found["b"].task is Task.none
    assert found["b"].fidelity["exact"] is True and found["b"].fidelity["top1_agreement"] == 1.0
    assert run_quality(linear(WEIGHT), batches(DATA, None, 16)) is None


def test_without_a_reference_there_is_quality_only():
    found = evaluate_sessions({"a": linear(NEAR)}, batches(DATA, LABELS, 16), reference=None)
    assert found["a"].fidelity is None and found["a"].outputs == {}
    assert run_quality(linear(WEIGHT), batches(DATA, LABELS, 16))["accuracy"] == 1.0


def test_regression_is_not_judged_by_argmax():
    targets = DATA @ WEIGHT + 0.5
    found = evaluate_sessions({"a": linear(WEIGHT), "b": linear(NEAR)}, batches(DATA, targets, 16), reference="a")
    assert found["a"].quality["rmse"] == pytest.approx(0.5, rel=1e-5)
    assert "top1_agreement" not in found["b"].fidelity


def test_the_task_may_be_given():
    labels = np.tile([0.0, 1.0], 25)
    session = linear(WEIGHT[:, :1])
    assert "accuracy" in run_quality(session, batches(DATA, labels, 16))
    assert "rmse" in run_quality(session, batches(DATA, labels, 16), Task.regression)


def test_outputs_are_matched_by_name_then_by_place():
    both = linear(WEIGHT, outputs=("one", "two"))
    turned = linear(WEIGHT, outputs=("two", "one"))
    other = linear(WEIGHT, outputs=("eins", "zwei"))
    more = linear(WEIGHT, outputs=("one", "two", "extra"))
    found = evaluate_sessions(
        {"a": both, "turned": turned, "other": other, "more": more}, batches(DATA, None, 50), reference="a"
    )
    assert found["other"].fidelity["exact"] is True and found["more"].fidelity["exact"] is True
    assert list(found["turned"].outputs) == ["one", "two"]
    assert found["turned"].fidelity["exact"] is False  # its "one" is the second, twice as large


def test_a_half_precision_twin_takes_the_same_data():
    found = evaluate_sessions(
        {"a": linear(WEIGHT), "half": linear(WEIGHT, kind=T.FLOAT16)},
        batches(DATA, LABELS, 50),
        reference="a",
    )
    assert found["half"].fidelity["sqnr_db"] > 50 and found["half"].quality["accuracy"] > 0.95


def test_errors():
    session, data = linear(WEIGHT), DATA[:8]
    for sessions, given, reference, error, message in (
        ({"a": session}, [], None, DataError, "the data set has no rows to evaluate"),
        ({"a": session}, [], "b", ModelError, "the reference 'b' is not among the models: a"),
        (
            {"a": linear(WEIGHT, input_name="z")},
            batches(data, None, 8),
            None,
            DataError,
            "the data set lacks the input 'z'",
        ),
        (
            {"a": session, "b": linear(WEIGHT, outputs=("p", "q"))},
            batches(data, None, 8),
            "a",
            ModelError,
            "the model 'b' has the outputs p, q; expected y",
        ),
        (
            {"a": session, "b": linear(WEIGHT[:, :3])},
            batches(data, None, 8),
            "a",
            ModelError,
            "the output 'y' has the shape [8, 3]; the original's is [8, 4]",
        ),
        (
            {"a": session},
            batches(data, LABELS[:8] + 9, 8),
            None,
            DataError,
            f"a label is {LABELS[0] + 9}; the model has the classes 0 to 3",
        ),
    ):
        with pytest.raises(error) as caught:
            evaluate_sessions(sessions, given, reference=reference)
        assert caught.value.message == message
    with pytest.raises(ResourceError, match="onnxruntime failed while running 'a': "):
        evaluate_sessions({"a": session}, [Batch({"x": data[:, :5]}, None, 8)], reference=None)


def test_the_reference_runs_once_for_all_candidates():
    calls = []

    class Counting:
        def __init__(self, session):
            self._session = session
            self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

        def run(self, names, feed):
            calls.append(len(feed["x"]))
            return self._session.run(names, feed)

    weight = np.eye(3)
    batches = [Batch({"x": np.full((4, 3), n, np.float32)}, None, 4) for n in range(3)]
    sessions = {"original": Counting(linear(weight)), "candidate": linear(weight * 1.01)}
    apart = evaluate_sessions(sessions, batches, reference="original")
    del calls[:]
    held = Remembered()
    first, second = (evaluate_sessions(sessions, batches, reference="original", remembered=held) for _ in range(2))
    assert calls == [4, 4, 4] and apart["candidate"] == first["candidate"] == second["candidate"]
    del calls[:]
    little = Remembered(most_bytes=4 * 3 * 4)  # room for one batch
    for _ in range(2):
        evaluate_sessions(sessions, batches, reference="original", remembered=little)
    assert calls == [4, 4, 4, 4, 4]


def test_rows_are_counted_along_the_axis_that_the_batch_says():
    """Two samples and two of padding lie on axis 1 of one input; the other, larger on axis 0, is shared."""
    batch = Batch({"table": np.ones((7, 2)), "x": np.ones((2, 4, 3))}, np.array([0, 1]), 2, {"table": None, "x": 1})
    assert _rows(batch) == 4
