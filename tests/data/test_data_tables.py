"""csv and parquet: rows in order, types by the model's inputs, mismatches told all at once."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.data import tablefiles
from modelkit.data.open import open_dataset
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec


def spec(name="x", dtype=np.float32, shape=("batch", 3)):
    return TensorSpec(name, np.dtype(dtype), tuple(shape))


def write(path, table):
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=7)
    return path


def gather(dataset, name, size=7):
    return np.concatenate([b.inputs[name][: b.valid] for b in dataset.batches(size)])


def refused(path, specs, **options):
    with pytest.raises(DataError) as caught:
        open_dataset(path, specs, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 20),
    seed=st.integers(0, 99),
    suffix=st.sampled_from(["csv", "parquet"]),
    picked=st.booleans(),
)
def test_features_in_file_order(tmp_path_factory, count, size, seed, suffix, picked):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)).astype(np.float32)
    y = random.integers(0, 4, count)
    table = pa.table({"z": x[:, 0].astype(float), "label": y, "a": x[:, 1].astype(float), "m": x[:, 2].astype(float)})
    path = write(tmp_path_factory.mktemp("t") / f"d.{suffix}", table)
    dataset = open_dataset(path, [spec()], need_labels=True, classes=4)
    assert dataset.count == count
    assert dataset.format == suffix
    if picked:
        wanted = random.integers(0, count, 25)
        dataset, x, y = dataset.subset(wanted), x[wanted], y[wanted]
    batches = list(dataset.batches(size))
    np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), x)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), y)
    assert batches[0].inputs["x"].dtype == np.float32


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_named_as_inputs(tmp_path, suffix):
    table = pa.table({"city": ["b", "", "a,b"], "age": [3, 4, 5], "target": [0.5, 1.5, 2.5]})
    specs = [spec("age", np.int64, ("N", 1)), spec("city", object, ("N",))]
    dataset = open_dataset(write(tmp_path / f"d.{suffix}", table), specs, need_labels=True)
    (batch,) = dataset.batches(8)
    assert batch.inputs["age"].tolist() == [[3], [4], [5]]
    assert batch.inputs["city"].tolist() == ["b", "", "a,b"]
    assert batch.labels.tolist() == [0.5, 1.5, 2.5]
    assert list(batch.inputs) == ["age", "city"]


def test_parquet_types(tmp_path):
    table = pa.table(
        {
            "a": pa.array(["u", "v"]).dictionary_encode(),
            "b": pa.array([True, False]),
            "c": pa.array([1, 2], pa.uint8()),
            "label": pa.array([True, False]),
        }
    )
    specs = [spec("a", object, ("N",)), spec("b", bool, ("N",)), spec("c", np.int64, ("N",))]
    (batch,) = open_dataset(write(tmp_path / "d.parquet", table), specs).batches(2)
    assert batch.inputs["a"].tolist() == ["u", "v"]
    assert batch.inputs["b"].tolist() == [True, False]
    assert batch.inputs["c"].tolist() == [1, 2]
    assert batch.labels.tolist() == [1, 0]


def test_integers_feed_floats_with_a_note_unless_inexact(tmp_path):
    table = pa.table({"a": [1, 2], "b": [0.5, 1.5]})
    dataset = open_dataset(write(tmp_path / "d.parquet", table), [spec(shape=("N", 2))])
    assert gather(dataset, "x").tolist() == [[1, 0.5], [2, 1.5]]
    assert dataset.notes == ("integer columns were read as float32 for input 'x'",)
    table = pa.table({"a": [1, 2**24 + 1], "b": [0.5, 1.5]})
    error = refused(write(tmp_path / "d.parquet", table), [spec(shape=("N", 2))])
    assert error.problems == ["column 'a' has 16777217 at row 1 (counted from 0), which float32 cannot hold exactly"]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_delimiters_and_a_byte_order_mark(tmp_path, sign):
    text = f"\ufeffa{sign}b\r\n1{sign}2\r\n3{sign}4\r\n"
    (tmp_path / "d.csv").write_bytes(text.encode())
    dataset = open_dataset(tmp_path / "d.csv", [spec(shape=("N", 2))])
    assert gather(dataset, "x").tolist() == [[1, 2], [3, 4]]


def test_a_csv_streams_over_many_blocks_in_constant_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tablefiles, "_CSV_BLOCK", 1 << 16)
    peaks = []
    for count in (20_000, 120_000):
        lines = "\n".join(f"{i},{i}.5,{i % 7}" for i in range(count))
        (tmp_path / "d.csv").write_text("a,b,c\n" + lines + "\n")
        tracemalloc.start()
        before = pa.default_memory_pool().max_memory()
        dataset = open_dataset(tmp_path / "d.csv", [spec()])
        total = 0
        for batch in dataset.batches(1000):
            total += batch.valid
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == count == dataset.count
    assert peaks[1] < 1.1 * peaks[0]
    assert pa.default_memory_pool().max_memory() - before < 8_000_000


@pytest.mark.parametrize(
    ("text", "options", "problems"),
    [
        ("a,b\n1,2\n", {}, ["input 'x' takes 3 features, the table has 2 columns"]),
        (
            "a,b,c\n1,2,3\n",
            {"need_labels": True},
            ["a column 'label' is missing; labels are needed to measure quality"],
        ),
        (
            "a,b,c,label,target\n1,2,3,4,5\n",
            {},
            ["the columns label and target could each be the labels; keep one"],
        ),
        ("a,b,a\n1,2,3\n", {}, ["the column 'a' is there twice"]),
        (
            "0.5,1,2\n1,2,3\n",
            {},
            ["its first line is data (0.5, 1, 2, ...); it must name the columns"],
        ),
        ("a,b,c\n", {}, ["it has no rows"]),
        (
            "a,b,c\n1,,3\n4,5,inf\nNaN,5,6\n",
            {},
            [
                "column 'a' has no value (or NaN) at row 2 (counted from 0)",
                "column 'b' has no value (or NaN) at row 0 (counted from 0)",
                "column 'c' has an infinite value at row 1 (counted from 0)",
            ],
        ),
        (
            "a,b,c,label\n1,2,3,0\n1,2,3,3\n",
            {"classes": 3},
            ["label 3 at row 1 (counted from 0) is not in 0 to 2; 1 labels are out of range"],
        ),
        (
            "a,b,c,label\n1,2,3,0.5\n",
            {"classes": 3},
            ["labels are float64; they must be integers from 0 to 2"],
        ),
    ],
)
def test_csv_mismatches(tmp_path, text, options, problems):
    (tmp_path / "d.csv").write_text(text)
    error = refused(tmp_path / "d.csv", [spec()], **options)
    assert error.problems == problems
    assert error.message.startswith("d.csv does not fit the model: ")


def test_csv_values_of_another_type(tmp_path):
    (tmp_path / "d.csv").write_text("a,b,c\n1,2,3\n4,x,6\n")
    assert "d.csv cannot be read" in refused(tmp_path / "d.csv", [spec()]).message
    assert "'x'" in refused(tmp_path / "d.csv", [spec()]).message
    (tmp_path / "d.csv").write_text("a,label\n1,cat\n")
    error = refused(tmp_path / "d.csv", [spec(shape=("N", 1))])
    assert "the label column 'label' holds something other than numbers" in error.message
    (tmp_path / "d.csv").write_text("a,label\n1,\n")
    error = refused(tmp_path / "d.csv", [spec(shape=("N", 1))])
    assert "the label column 'label' has no value (or NaN) at row 0" in error.message or "number" in error.message


def test_parquet_mismatches(tmp_path):
    table = pa.table(
        {
            "a": pa.array([1.5, 2.5]),
            "b": pa.array([[1], [2]]),
            "c": pa.array(["x", "y"]),
            "d": pa.array([1, None]),
            "e": pa.array([None, None]),
            "f": pa.array([1, 300]),
        }
    )
    path = write(tmp_path / "d.parquet", table)
    error = refused(path, [spec(n, np.uint8, ("N",)) for n in "abcdef"])
    assert error.problems == [
        "column 'a' holds double, input 'a' takes uint8 [N]",
        f"column 'b' holds {pq.read_schema(path).field('b').type}, input 'b' takes uint8 [N]",
        "column 'c' holds string, input 'c' takes uint8 [N]",
        "column 'd' has no value (or NaN) at row 1 (counted from 0)",
        "column 'e' is empty from row 0 (counted from 0)",
        "column 'f' has the value 300, which uint8 cannot hold, at row 1 (counted from 0)",
    ]
    error = refused(path, [spec("a", shape=("N",)), spec("B", shape=("N",))])
    assert error.problems[0] == "input 'B' (float32 [N]) is missing; did you mean 'b'?"
    assert len(error.problems) == 6
    assert error.hint.startswith("expected a float32 [N], B float32 [N] and a column label")


def test_tables_do_not_feed_images(tmp_path):
    (tmp_path / "d.csv").write_text("a,b,c\n1,2,3\n")
    error = refused(tmp_path / "d.csv", [spec(shape=("N", 3, 8, 8))])
    assert error.problems == [
        "a table feeds one input [N, F] or inputs of one value each; the model takes x float32 [N, 3, 8, 8]"
    ]
    error = refused(tmp_path / "d.csv", [spec(shape=("N", 3)), spec("t", shape=())])
    assert error.problems == ["a table feeds inputs whose first dimension counts the samples; this model's does not"]
