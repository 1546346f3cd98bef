"""What steps made is found again by what it depends on, never when it is damaged, and shared without harm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelkit import api
from modelkit.recipe.cache import MODEL, Cache, Entry
from modelkit.recipe.inputs import prepare
from modelkit.recipe.job import recipe_job
from modelkit.recipe.steps import step_key

SAMPLES = Path(__file__).parents[2] / "sample_models"
MLP = SAMPLES / "digits_mlp.onnx"
STEPS: list[dict[str, Any]] = [
    {"command": "prune", "sparsity": 0.5, "method": "magnitude"},
    {"command": "quantize", "mode": "weights"},
]
QUICK: dict[str, Any] = {"measure": {"seconds": 0.001}}
KEY = "ab" * 32


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / MODEL).write_bytes(b"a model")
    return folder


@pytest.fixture
def cache(tmp_path: Path, made: Path) -> Cache:
    found = Cache(tmp_path / "cache")
    found.store(KEY, made, Entry({"method": "µ", "numbers": [1.5, None, float("nan")]}, 2.5))
    return found


def fetch(cache: Cache, folder: Path, key: str = KEY) -> tuple[Entry | None, list[str]]:
    into = folder / f"into {len(list(folder.iterdir()))}"
    into.mkdir()
    return cache.fetch(key, into), sorted(path.name for path in into.iterdir())


def test_what_is_stored_comes_back(cache: Cache, tmp_path: Path) -> None:
    entry, names = fetch(cache, tmp_path)
    assert entry == Entry({"method": "µ", "numbers": [1.5, None, None]}, 2.5) and names == [MODEL]
    assert fetch(cache, tmp_path, "cd" * 32) == (None, [])


def test_external_data_comes_with_its_model(cache: Cache, made: Path, tmp_path: Path) -> None:
    (made / f"{MODEL}.data").write_bytes(b"weights")
    cache.store(KEY, made, Entry({}, 1))
    entry, names = fetch(cache, tmp_path)
    assert entry is not None and names == [MODEL, f"{MODEL}.data"]
    (cache.folder / f"{KEY}.onnx.data").write_bytes(b"Weights")
    assert fetch(cache, tmp_path) == (None, [])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def fold(path: Path) -> None:
    path.unlink()
    path.mkdir()


def wrong(path: Path) -> None:
    path.write_text(json.dumps({"schema": "modelkit.cache/1", "key": KEY, "files": {"": 3, "../x": "y"}}))


@pytest.mark.parametrize("ending", [".onnx", ".json"])
@pytest.mark.parametrize("damage", [cut, flip, link, fold, wrong, Path.unlink])
def test_a_damaged_entry_is_none(
    cache: Cache, tmp_path: Path, made: Path, ending: str, damage: Callable[[Path], None]
) -> None:
    damage(cache.folder / f"{KEY}{ending}")
    assert fetch(cache, tmp_path) == (None, [])
    if damage is not fold:
        cache.store(KEY, made, Entry({}, 1))
        assert fetch(cache, tmp_path)[0] == Entry({}, 1)


def test_every_bit_of_the_record_counts(cache: Cache, tmp_path: Path) -> None:
    path = cache.folder / f"{KEY}.json"
    content = path.read_bytes()
    meaning = json.loads(content)
    for place in range(0, len(content), 3):
        broken = bytearray(content)
        broken[place] ^= 4
        path.write_bytes(broken)
        entry, _ = fetch(cache, tmp_path)
        try:
            same = json.loads(broken) == meaning
        except ValueError:
            same = False
        assert (entry is not None) == same, bytes(broken[max(0, place - 20) : place + 20])


def test_the_key_is_all_that_a_step_depends_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **dict(np.load(SAMPLES / "digits_mlp.calib.npz")))

    def keys(data: Path | None = None, **more: Any) -> list[str]:
        recipe = {"steps": STEPS, **QUICK, **more}
        job = recipe_job(MLP, recipe, output=tmp_path / "x.onnx", data=data)
        return [step_key(step, "given") for step in prepare(job).steps]

    first = keys()
    assert first == keys() and len(set(first)) == 2
    assert keys(budget={"max_drop": 0.5}) == first, "the budget of the whole changes no step"
    data = keys(tmp_path / "d.npz")
    assert not set(data) & set(first)
    assert not set(keys(seed=1)) & set(first)
    bits = keys(steps=[STEPS[0], {**STEPS[1], "bits": 4}])
    assert bits[0] == first[0] and bits[1] != first[1]
    with np.load(tmp_path / "d.npz") as found:
        arrays = dict(found)
    np.savez(tmp_path / "d.npz", **{name: array[:-1] for name, array in arrays.items()})
    assert not set(keys(tmp_path / "d.npz")) & set(data)


def run(folder: Path, steps: list[dict[str, Any]] | None = None, **more: Any) -> list[bool]:
    report = api.run_recipe({"steps": steps or STEPS, **QUICK}, MLP, output=folder / "x.onnx", force=True, **more)
    return [step["cached"] for step in report.steps]


def test_a_damaged_step_is_done_again(tmp_path: Path) -> None:
    assert run(tmp_path, cache=tmp_path / "kept") == [False, False]
    good = (tmp_path / "x.onnx").read_bytes()
    assert run(tmp_path, cache=tmp_path / "kept") == [True, True]
    for path in (tmp_path / "kept").glob("*.onnx"):
        if path.read_bytes() == good:
            flip(path)
    assert run(tmp_path, cache=tmp_path / "kept") == [True, False]
    assert (tmp_path / "x.onnx").read_bytes() == good
    assert run(tmp_path, cache=False) == [False, False]
    # Whoever writes into an artifact does not write into the cache.
    flip(tmp_path / "x.onnx")
    assert run(tmp_path, cache=tmp_path / "kept") == [True, True]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o500)
    assert run(tmp_path, cache=tmp_path / "kept") == [False, False]


def test_a_cache_that_is_a_file_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    report = api.run_recipe(
        {"steps": STEPS, **QUICK}, MLP, output=tmp_path / "x.onnx", cache=tmp_path / "kept" / "below"
    )
    assert any("nothing more was kept" in note for note in report.notes)


def test_a_step_of_its_own_data_and_the_same_test(tmp_path: Path) -> None:
    """Without a test set part of the data is set apart, the same for each step, whatever it works with."""
    with np.load(SAMPLES / "digits_mlp.eval.npz") as found:
        arrays = dict(found)
    np.savez(tmp_path / "all.npz", **arrays)
    np.savez(tmp_path / "own.npz", **{name: array[:100] for name, array in arrays.items() if name != "labels"})
    steps = [
        {"command": "prune", "sparsity": 0.3, "method": "wanda"},
        {"command": "quantize", "mode": "static", "data": str(tmp_path / "own.npz")},
    ]
    report = api.run_recipe(
        {"steps": steps, **QUICK}, MLP, output=tmp_path / "x.onnx", data=tmp_path / "all.npz", cache=False
    )
    count = len(arrays["labels"])
    judged = report.data["test"]
    assert judged["count"] == pytest.approx(count / 2, abs=10) and judged["labelled"]
    used = [step["data"] for step in report.steps]
    assert {data["test"]["sha256"] for data in used} == {judged["sha256"]}
    assert sum(used[0][role]["count"] for role in ("calibration", "selection")) + judged["count"] == count
    assert used[1]["calibration"]["path"] == "own.npz" and used[1]["calibration"]["count"] == 50


def test_samples_that_test_are_in_no_other_role(tmp_path: Path) -> None:
    from modelkit.data.roles import assign_roles
    from modelkit.runtime import input_specs, make_session
    from modelkit.transform.job import _open_data

    job = recipe_job(MLP, {"steps": STEPS, **QUICK}, output=tmp_path / "x.onnx", data=SAMPLES / "digits_mlp.eval.npz")
    inputs = prepare(job)
    specs = input_specs(make_session(MLP))

    def rows(dataset: Any) -> set[bytes]:
        return {row.tobytes() for part in dataset.batches(64) for row in part.inputs[specs[0].name]}

    judged = rows(inputs.judge)
    for step, training in zip(inputs.steps, (False, True), strict=True):
        data, test = _open_data(step.job, specs, 10)
        assert data is not None and test is not None and rows(test) == judged
        roles = assign_roles(data, test, test, seed=3, training=training)
        assert roles.calibration is not None
        assert not judged & (rows(roles.calibration) | rows(roles.selection))
