"""Typed tables: what columns hold, in every format, and what is said of files that are wrong."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from automl_tables import mixed, write_csv

from modelkit.data.frame import Kind
from modelkit.data.framefiles import read_frame
from modelkit.errors import DataError, UsageError


def test_kinds_are_told_from_a_csv(tmp_path):
    frame = read_frame(mixed(tmp_path / "m.csv"))
    kinds = {name: field.kind for name, field in frame.fields.items()}
    assert kinds == {
        "key": Kind.category,
        "size": Kind.number,
        "color": Kind.category,
        "flag": Kind.boolean,
        "day": Kind.date,
        "at": Kind.datetime,
        "fixed": Kind.category,
        "churn": Kind.category,
    }
    assert 0 < frame.fields["size"].missing.sum() < 60
    assert 0 < frame.fields["color"].missing.sum() < 60


def test_formats_agree(tmp_path):
    table = {"a": [1.5, None, 3.0], "b": ["x", "", "z"], "c": [True, False, None]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    write_csv(tmp_path / "t.csv", ["a", "b", "c"], [[1.5, "x", "true"], ["", "", "false"], [3.0, "z", ""]])
    (tmp_path / "t.tsv").write_text("a\tb\tc\n1.5\tx\ttrue\nNA\t\tfalse\n3\tz\t\n")
    for name in ("t.parquet", "t.csv", "t.tsv"):
        frame = read_frame(tmp_path / name)
        np.testing.assert_array_equal(frame.fields["a"].values, [1.5, np.nan, 3.0])
        assert frame.fields["b"].values.tolist() == ["x", "", "z"]
        np.testing.assert_array_equal(frame.fields["c"].values, [1.0, 0.0, np.nan])
        assert [field.kind.value for field in frame.fields.values()] == ["number", "category", "boolean"]


def test_npz_columns(tmp_path):
    np.savez(tmp_path / "t.npz", x=np.arange(6.0).reshape(3, 2), y=np.array(["a", "b", "a"]))
    frame = read_frame(tmp_path / "t.npz")
    assert list(frame.fields) == ["x_0", "x_1", "y"]
    assert frame.fields["y"].values.tolist() == ["a", "b", "a"]


def test_dates_of_parquet(tmp_path):
    day = pa.array(np.array(["2024-02-29", "NaT"], "datetime64[D]"))
    at = pa.array(np.array(["2024-02-29T12:00", "1969-12-31T23:59:59"], "datetime64[s]"))
    pq.write_table(pa.table({"day": day, "at": at}), tmp_path / "d.parquet")
    frame = read_frame(tmp_path / "d.parquet")
    assert frame.fields["day"].values[0] == 19782
    assert np.isnan(frame.fields["day"].values[1])
    assert frame.fields["at"].values.tolist() == [19782.5 * 86400, -1.0]


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        (
            b"a,b\n1,2\n1,2,3\n4\n",
            "2 lines have another number of values than the first line: line 3 has 3",
            "quotes",
        ),
        (b"a,a\n1,2\n", "the column 'a' is there twice", "rename"),
        (b"a,b\n1,caf\xe9\n", "line 2: not UTF-8 text", "iconv"),
        ("a,b\n1,2\n".encode("utf-16"), "is UTF-16", "iconv"),
        (b"", "is empty", "first line"),
        (b"a,b\n", "has no rows", "first line"),
        (b"1,2\n3,4\n", "first line of", "names its columns"),
        (b"a,\n1,2\n", "column 2 has no name", "first line"),
        (b"a,b\n1,\0\n", "is not text", None),
    ],
)
def test_files_that_are_wrong(tmp_path, content, said, hint):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_frame(path)
    assert said in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_a_file_that_is_not_there(tmp_path):
    write_csv(tmp_path / "data.csv", ["a"], [[1]])
    with pytest.raises(UsageError) as caught:
        read_frame(tmp_path / "dta.csv")
    assert "data.csv" in caught.value.hint


def test_known_kinds_are_kept(tmp_path):
    path = write_csv(tmp_path / "t.csv", ["code", "n"], [["1", "2"], ["02", "x"]])
    assert read_frame(path, {"code": Kind.category}).fields["code"].values.tolist() == ["1", "02"]
    with pytest.raises(DataError) as caught:
        read_frame(path, {"n": Kind.number})
    assert "column 'n' holds 'x' in row 2; numbers are expected" in caught.value.message


def test_infinite_values_count_as_missing(tmp_path):
    frame = read_frame(write_csv(tmp_path / "t.csv", ["a"], [["inf"], ["1"]]))
    assert np.isnan(frame.fields["a"].values[0])
    assert "infinite" in frame.notes[0]


def test_a_column_of_numbers_with_odd_texts_is_said(tmp_path):
    rows = [[number] for number in range(300)] + [["12,5"]]
    frame = read_frame(write_csv(tmp_path / "t.csv", ["a"], rows))
    assert frame.fields["a"].kind is Kind.category
    assert "'12,5'" in frame.notes[0]
