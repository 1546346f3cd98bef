"""Whole searches: what is written, going on after an end, failures of trials, shared studies, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from nas_inline import MLP, Inline, blobs, search

from modelkit import api
from modelkit.architectures.build import build, cost, parse
from modelkit.architectures.signature import Signature
from modelkit.cli.app import run as cli
from modelkit.config.resolve import resolve
from modelkit.data.npz import open_npz
from modelkit.errors import (
    BudgetError,
    ConfigError,
    DataError,
    ModelError,
    ModelkitError,
    ResourceError,
    UsageError,
)
from modelkit.graph.facts import describe
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.graph.save import save
from modelkit.jobs.protocol import Finished, Status, Task
from modelkit.measure.evaluate import run_quality
from modelkit.nas.config import Constraints, Derived, NasConfig
from modelkit.nas.derived import Around, start
from modelkit.nas.planned import planned
from modelkit.nas.residual import blocks, without
from modelkit.nas.session import pareto_folder
from modelkit.nas.trial import measure
from modelkit.runtime import input_specs, make_session
from modelkit.train.config import TrainOptions

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def gist(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What must be the same of two studies."""
    return [(t["trial"], t["source"], t["status"], t["epochs"], t["quality"], t["macs"]) for t in report["trials"]]


def test_a_search_writes_the_best_and_the_pareto_set(tmp_path: Path) -> None:
    held = blobs(tmp_path / "held.npz", 90)
    report = search(tmp_path, test=held, html=True)
    found = sorted(path.name for path in pareto_folder(tmp_path / "best.onnx").iterdir())
    assert found == sorted(
        f"{n:02d}.{kind}" for n in range(1, len(report["pareto"]) + 1) for kind in ("onnx", "yaml")
    )
    assert {p.name for p in tmp_path.glob("best.*")} == {
        *("best.onnx", "best.pareto", "best.report.json", "best.report.md", "best.report.html")
    }
    session = make_session(tmp_path / "best.onnx")
    data = open_npz(held, input_specs(session), need_labels=True, classes=None)
    assert run_quality(session, data.batches(64)) == pytest.approx(report["best"]["test"])
    costs = [(each["macs"], each["quality"]) for each in report["pareto"]]
    assert costs == sorted(costs) and len({q for _, q in costs}) == len(costs)
    for each in report["pareto"]:
        document = yaml.safe_load((tmp_path / "best.pareto" / each["file"].replace("onnx", "yaml")).read_text())
        signature = Signature((5,), 3, "x", mean=(0.0,) * 5, scale=(1.0,) * 5)
        assert cost(parse(document, "x"), signature).macs == each["macs"]
    assert report["baseline"]["trials"] == 2 and report["samples"] == {"training": 128, "validation": 32, "test": 90}
    assert json.loads((tmp_path / "best.report.json").read_text())["status"] == "done"


def test_ending_at_any_moment_and_going_on_ends_with_the_same_study(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = search(tmp_path / "whole", fidelity__method="asha", training__epochs=3, trials=4)
    for moment in (0, 1, 3, 5):
        folder = tmp_path / str(moment)
        folder.mkdir()
        left = [moment]

        def stop(task: Task, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(folder, runner=Inline(stop), fidelity__method="asha", training__epochs=3, trials=4)
        # Ctrl-C writes what was found.
        assert (folder / "best.onnx").exists() == (moment > 0)
        runner = Inline()
        if not moment:
            continue
        again = search(folder, resume=True, runner=runner, fidelity__method="asha", training__epochs=3, trials=4)
        assert gist(again) == gist(whole)
        assert again["pareto"][0]["document"] == whole["pareto"][0]["document"]
        assert not (folder / "best.nas").exists()


def test_a_torn_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    whole = search(tmp_path)

    def stop(task: Task) -> None:
        if task.name.startswith("trial 4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, force=True, runner=Inline(stop))
    journal = tmp_path / "best.nas" / "study.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    assert gist(search(tmp_path, resume=True)) == gist(whole)


def test_trials_that_die_are_recorded(tmp_path: Path) -> None:
    def trouble(task: Task) -> Finished | None:
        found = {"trial 1": Status.CRASHED, "trial 2": Status.TIMED_OUT, "trial 4": Status.OUT_OF_MEMORY}
        status = found.get(task.name.partition(",")[0])
        return None if status is None else Finished(task, status, reason="it was killed")

    report = search(tmp_path, runner=Inline(trouble))
    assert [t["status"] for t in report["trials"]] == [
        *("done", "crashed", "timed out", "done", "out of memory", "done")
    ]
    assert report["notes"] == ["3 trials failed; the first: it was killed"]


def test_candidates_that_all_fail_end_the_search(tmp_path: Path) -> None:
    def trouble(task: Task) -> Finished:
        return Finished(task, Status.FAILED, reason="it gives no numbers")

    with pytest.raises(ModelError, match=r"the first 5 candidates all failed; the first one: it gives no numbers"):
        search(tmp_path, runner=Inline(trouble))
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz"}


def test_a_model_that_gives_no_numbers_is_no_result(tmp_path: Path) -> None:
    broken = build(parse({"family": "mlp"}, "x"), Signature((5,), 3, "x", mean=(np.nan,) * 5, scale=(1.0,) * 5))
    save(broken, tmp_path / "nan.onnx")
    session = make_session(tmp_path / "nan.onnx")
    data = open_npz(blobs(tmp_path / "d.npz"), input_specs(session), need_labels=True, classes=None)
    with pytest.raises(ModelkitError, match=r"no number|not finite|NaN"):
        measure(tmp_path / "nan.onnx", data, {"seconds": 0.001, "threads": 1, "batch": 1})


def test_limits_that_nothing_keeps(tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"none of the 6 candidates keeps the limits; the nearest one: \d+ bytes of 10"
    ):
        search(tmp_path, limits__max_size="10")
    report = search(tmp_path, force=True, limits__max_size="100kB", baseline="full")
    assert report["baseline"]["kind"] == "full" and report["baseline"]["trials"] == 6


def test_time_too_short_for_one_trial(tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"the time is too short for one trial: one takes 0\.1 s here, and --time is"
    ):
        search(tmp_path, time="0.05s", trials=None)


def test_another_space_or_data_is_not_gone_on_with(tmp_path: Path) -> None:
    def stop(task: Task) -> None:
        if task.name.startswith("trial 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, runner=Inline(stop))
    with pytest.raises(
        UsageError, match=r"the study in '.*' belongs to another space: its hash is \w+, that of this one"
    ):
        search(tmp_path, resume=True, space={**MLP, "activation": ["relu", "elu"]})
    with pytest.raises(UsageError, match="was another one: seed changed since"):
        search(tmp_path, resume=True, seed=2)
    with pytest.raises(UsageError, match="holds no study to go on with"):
        (tmp_path / "b").mkdir()
        search(tmp_path / "b", resume=True)


def test_a_shared_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    for name in "ab":
        (tmp_path / name).mkdir()
        blobs(tmp_path / name / "data.npz")
    search(tmp_path / "a", storage=url, trials=3)
    report = search(tmp_path / "b", storage=url, trials=3, seed=2, warmup=1)
    assert report["notes"] == ["3 trials of other machines guided the search; their files are there"]
    with pytest.raises(UsageError, match=r"the study 'nas' in 'sqlite:///.*' belongs to another space"):
        search(tmp_path / "a", force=True, storage=url, space={**MLP, "batchnorm": [True, False]})
    with pytest.raises(ResourceError, match=r"the storage 'sqlite:////no/such/folder/x.db' cannot be reached"):
        search(tmp_path / "a", force=True, storage="sqlite:////no/such/folder/x.db")
    with pytest.raises(UsageError, match=r"'study.db' is no URL of a database"):
        search(tmp_path / "a", force=True, storage="study.db")
    with pytest.raises(UsageError, match=r"the storage 'nosuch://me@host/x' is no URL that can be used"):
        search(tmp_path / "a", force=True, storage="nosuch://me:secret@host/x")


def test_two_machines_that_make_the_tables_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    create, calls = optuna.create_study, []

    def late(**given: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise RuntimeError("duplicate key value violates unique constraint: it already exists")
        return create(**given)

    monkeypatch.setattr(optuna, "create_study", late)
    report = search(tmp_path, storage=f"sqlite:///{tmp_path}/study.db", trials=2)
    assert len(calls) == 2 and report["counts"] == {"done": 2}


def test_the_function_of_the_library_takes_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkit.nas.session.LocalRunner", lambda *_, **__: Inline())
    options = {"space": MLP, "trials": 2, "training.epochs": 1, "timing.seconds": 0.001}
    report = api.nas(blobs(tmp_path / "d.npz"), output=tmp_path / "found.onnx", config=options)
    assert report["counts"] == {"done": 2} and (tmp_path / "found.onnx").exists()


def test_samples_that_cannot_be_used(tmp_path: Path) -> None:
    few = blobs(tmp_path / "few.npz", 20)
    with pytest.raises(
        DataError, match=r"'few.npz' has 20 samples, too few to divide: \w+ would have 4 of them, and"
    ):
        search(tmp_path, few)
    np.savez(tmp_path / "none.npz", x=np.zeros((90, 2), np.float32))
    with pytest.raises(DataError, match=r"none.npz has no array 'labels'"):
        search(tmp_path, tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"two.npz has 2 arrays besides 'labels' \(x, y\)"):
        search(tmp_path, blobs(tmp_path / "two.npz", y=np.zeros(160)))


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    for setting, message in (
        ({"objectives": ["macs"]}, "objectives must name quality"),
        ({"validation": 0.6, "test": 0.5}, "validation and test leave no samples to train on"),
        ({"derived.bits": [5]}, "bits may be 32, 8 or 4, not 5"),
        (
            {"fidelity.method": "asha", "fidelity.min_epochs": 10},
            "fidelity.min_epochs 10 must be below training.epochs 10",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(NasConfig, flags={name: (value, name) for name, value in setting.items()})
        assert any(message in line for line in caught.value.problems), caught.value.problems
    with pytest.raises(UsageError, match="there is nothing to search: neither a space nor a model"):
        search(tmp_path, space=None)
    with pytest.raises(UsageError, match="a space and a model are given"):
        search(tmp_path, model=SAMPLES / "digits_mlp.onnx", space=MLP)


def test_around_a_saved_model(tmp_path: Path) -> None:
    data = SAMPLES / "fashion_cnn.calib.npz"
    report = search(
        tmp_path,
        data,
        model=SAMPLES / "fashion_cnn.onnx",
        trials=4,
        training__epochs=1,
        derived__widths=[0.25, 1.0],
        derived__bits=[8, 32],
        derived__planned=False,
        warmup=1,
    )
    whole, quarter = report["trials"][0], report["trials"][1]
    assert whole["source"] == quarter["source"] == "given" and quarter["macs"] < 0.2 * whole["macs"]
    assert whole["quality"] > 0.8
    names = [name for name, _ in report["space"]["variables"]]
    assert sum(name.startswith("drop.") for name in names) == 2 and any(name.startswith("bits.") for name in names)
    sizes = {each["bytes"] / max(each["parameters"], 1) for each in report["trials"]}
    assert min(sizes) < 3.9
    assert make_session(tmp_path / "best.onnx").get_inputs()[0].name == "image"


def test_planned_candidates_cost_no_more_than_uniform_ones_and_do_less_harm(tmp_path: Path) -> None:
    model = load(SAMPLES / "fashion_cnn.onnx").model
    normalise(model)
    specs = input_specs(session_of(model))
    with np.load(SAMPLES / "fashion_cnn.calib.npz") as stored:
        np.savez(tmp_path / "few.npz", image=stored["image"][:128], labels=stored["labels"][:128])
    data = open_npz(tmp_path / "few.npz", specs, need_labels=True, classes=None)
    problem = Around(model, "x", Derived(widths=[0.25, 0.5, 0.75, 1.0]), Constraints())
    uniform, found = problem.first(), planned(problem, data)
    assert len(found) == len(set(found)) >= 2 and not set(found) & set(uniform)
    macs = sorted(problem.look(genome).macs for genome in uniform)
    for genome in found:
        document = problem.look(genome).document
        assert not any(document["drop"].values()) and problem.look(genome).macs <= macs[-1]
    half = problem.look(uniform[2]).macs
    best = max((g for g in found if problem.look(g).macs <= half), key=lambda g: problem.look(g).macs)
    scores = []
    for genome in (uniform[2], best):
        payload = {
            "reference": SAMPLES / "fashion_cnn.onnx",
            "derived": problem.options.model_dump(),
            "document": problem.look(genome).document,
            "options": TrainOptions().model_dump(),
        }
        cut, _ = start(payload, data, lambda *_: None)
        held = open_npz(SAMPLES / "fashion_cnn.eval.npz", specs, need_labels=True, classes=None)
        scores.append(run_quality(session_of(cut), held.batches(256))["log_loss"])
    assert scores[1] < scores[0]
    assert planned(Around(model, "x", Derived(planned=False), Constraints()), data) == ()


def test_a_model_without_its_blocks_runs() -> None:
    model = load(SAMPLES / "fashion_cnn.onnx").model
    normalise(model)
    names, macs = list(blocks(model)), describe(model).macs or 0
    assert len(names) == 2
    for gone in (frozenset(names[:1]), frozenset(names[1:]), frozenset(names)):
        short = model.clone()
        without(short, gone)
        assert (describe(short).macs or 0) < macs and set(blocks(short)) == set(names) - gone
        image = np.zeros((2, 1, 28, 28), np.float32)
        assert session_of(short).run(["logits"], {"image": image})[0].shape == (2, 10)


def test_the_command_line_with_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "nas.yaml"
    config.write_text(yaml.safe_dump({"space": MLP, "training": {"epochs": 1}, "timing": {"seconds": 0.001}}))
    argv = [
        "nas",
        "--config",
        str(config),
        "--data",
        str(blobs(tmp_path / "d.npz")),
        "-o",
        str(tmp_path / "best.onnx"),
    ]
    assert cli([*argv, "--trials", "3", "--workers", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == {"done": 3}
    assert cli(argv) == 2
    assert "exist already" in capsys.readouterr().err
    assert cli(["nas", "--config", str(config)]) == 2
    assert "a search needs samples to learn from" in capsys.readouterr().err
