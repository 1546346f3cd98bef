"""A folder of models through the command line: what is made, what is shown, how it ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import job_models
import pytest
from job_inline import InlineRunner

from modelkit.cli.app import run
from modelkit.files import sha256

QUICK = ("--set", "measure.seconds=0.001", "--set", "objective=size", "--mode", "weights")
FAST = ("--set", "measure.seconds=0.001")


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def status(self) -> dict[str, str]:
        return {line["model"]: line["status"] for line in self.lines[:-1]}


Cli = Callable[..., Ran]


@pytest.fixture
def cli(real_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line without worker processes, which take a while to start."""
    monkeypatch.setattr("modelkit.batch.run.LocalRunner", InlineRunner)
    return real_cli


@pytest.fixture
def real_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line as it is."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> Ran:
        capsys.readouterr()
        code = run([str(part) for part in argv])
        return Ran(code, *capsys.readouterr())

    return call


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_quantize_does_all_that_can_be_done(real_cli: Cli, scratch: Path) -> None:
    ends = job_models.zoo(Path("models"))
    job_models.endless(Path("models/hang.onnx"))
    job_models.hungry(Path("models/hungry.onnx"), 3)
    ends |= {"hang.onnx": "timed out", "hungry.onnx": "out of memory"}
    given = {name: sha256(Path("models") / name) for name in tree(Path("models"))}

    ran = real_cli("quantize", "models", "-o", "out", "--workers", 2, "--timeout", "3s", "--memory", "700MB", *QUICK)
    assert ran.code == 3, ran
    assert ran.err.splitlines()[-2:] == ["error: 6 of 13 models failed", "hint: out/summary.md tells why"]
    assert "[13/13]" in ran.err and ran.out.startswith("13 models: 7 done, 4 failed, 1 out of memory, 1 timed out\n")
    assert max(map(len, ran.out.splitlines())) <= 80
    made = {name.removesuffix(".onnx") + ".int8" for name, end in ends.items() if end == "done"}
    written = {f"{name}{suffix}" for name in made for suffix in (".onnx", ".report.json", ".report.md")}
    assert tree(Path("out")) == written | {"summary.json", "summary.md", ".modelkit/quantize.jsonl", ".modelkit/lock"}
    assert given == {name: sha256(Path("models") / name) for name in tree(Path("models"))}
    assert not list(scratch.iterdir())

    summary = json.loads(Path("out/summary.json").read_text())
    assert {row["model"]: row["status"] for row in summary["models"]} == ends
    assert [row["model"] for row in summary["models"]] == sorted(ends)
    assert (summary["schema"], summary["exit_code"]) == ("modelkit.summary/1", 3)
    reasons = {row["model"]: row["reason"] for row in summary["models"]}
    assert "Git LFS pointer" in reasons["pointer.onnx"] and "com.example:Secret" in reasons["custom.onnx"]
    assert "3 s" in reasons["hang.onnx"] and "allowed" in reasons["hungry.onnx"]
    page = Path("out/summary.md").read_text()
    assert "| `with space/ä 1.onnx` |" in page and "## Why" in page

    again = real_cli("quantize", "models", "-o", "out", "--resume", "--skip", "h*.onnx", "--json", *QUICK)
    assert again.code == 3
    resumed = {line["model"] for line in again.lines[:-1] if line["resumed"]}
    assert resumed == {name for name, end in ends.items() if end == "done"}


def test_the_result_is_that_of_a_single_run_whatever_the_workers(real_cli: Cli) -> None:
    for number in range(3):
        job_models.mlp(Path(f"models/m{number}.onnx"), seed=number)
    data = job_models.SAMPLES / "digits_mlp.calib.npz"
    assert data.exists()
    hashes = []
    for workers in (1, 2):
        assert real_cli("quantize", "models", "-o", f"out{workers}", "--workers", workers, *QUICK).code == 0
        hashes.append([sha256(Path(f"out{workers}/m{number}.int8.onnx")) for number in range(3)])
    assert real_cli("quantize", "models/m1.onnx", "-o", "single.onnx", *QUICK).code == 0
    assert hashes[0] == hashes[1] and hashes[0][1] == sha256(Path("single.onnx"))
    report = json.loads(Path("out2/m1.int8.report.json").read_text())
    single = json.loads(Path("single.report.json").read_text())
    assert report.keys() == single.keys() and report["decisions"] == single["decisions"]
    assert report["config"] == single["config"] and report["origins"] == single["origins"]


def test_prune_and_a_budget_that_is_missed(cli: Cli) -> None:
    job_models.mlp(Path("models/a.onnx"))
    job_models.mlp(Path("models/b.onnx"), width=8)
    ran = cli("prune", "models", "-o", "out", "--sparsity", "0.5", "--json", *FAST)
    assert (ran.code, ran.status) == (0, {"a.onnx": "done", "b.onnx": "done"}), ran
    assert Path("out/a.pruned.onnx").exists()
    ran = cli("prune", "models", "-o", "tight", "--sparsity", "0.5", "--min-ratio", "100", "--json", *FAST)
    assert ran.code == 1 and set(ran.status.values()) == {"budget not met"}
    assert ran.err.splitlines()[-2] == "error: 2 of 2 models missed the budget"
    assert "100.00x wanted" in ran.lines[0]["reason"] and ran.lines[0]["exit_code"] == 1
    assert tree(Path("tight")) >= {"a.pruned.report.json"} and "a.pruned.onnx" not in tree(Path("tight"))
    again = cli(
        "prune", "models", "-o", "tight", "--sparsity", "0.5", "--min-ratio", "100", "--resume", "--json", *FAST
    )
    assert again.code == 1 and all(line["resumed"] for line in again.lines[:-1])


def test_inspect_prints_or_keeps(cli: Cli) -> None:
    ends = job_models.zoo(Path("models"), good=2)
    ends["custom.onnx"] = "done"  # looking needs no kernel
    ran = cli("inspect", "models", "--json")
    assert ran.code == 3 and ran.status == ends
    assert list(ran.status) == sorted(ends)
    good = next(line for line in ran.lines if line["status"] == "done")
    assert good["document"]["schema"] == "modelkit.inspection/1" and good["figures"]["parameters"] > 0
    assert not Path("out").exists()
    ran = cli("inspect", "models", "-o", "out", "--workers", 2, "--match", "*m0.onnx", "--match", "plain/*")
    assert ran.code == 0 and "parameters" in ran.out
    assert "out/plain/m0.inspection.json" in {f"out/{name}" for name in tree(Path("out"))}
    document = json.loads(Path("out/plain/m0.inspection.json").read_text())
    assert document["schema"] == "modelkit.inspection/1"


def test_evaluate_measures_each_by_itself(cli: Cli) -> None:
    shutil.copytree(job_models.SAMPLES / "twins", "models", ignore=shutil.ignore_patterns("language*", "digits*"))
    data = job_models.SAMPLES / "fashion_cnn.eval.npz"
    ran = cli(
        "evaluate", "models", "--data", data, "--match", "*batch1*", "--match", "*qdq*", "--seconds", "0.01", "--json"
    )
    assert ran.code == 0, ran
    assert [line["figures"]["metric"] for line in ran.lines[:-1]] == ["accuracy", "accuracy"]
    assert cli("evaluate", "models", "models/fashion_cnn_qdq.onnx").code == 2


def test_what_changed_is_done_again(cli: Cli) -> None:
    for name in ("a", "b", "c"):
        job_models.mlp(Path(f"models/{name}.onnx"))
    shutil.copy(job_models.SAMPLES / "twins" / "digits_mlp_external.onnx", "models/e.onnx")
    shutil.copy(job_models.SAMPLES / "twins" / "digits_mlp_external.onnx.data", "models")
    argv = ["inspect", "models", "-o", "out", "--json"]
    assert cli(*argv).code == 0

    def done(*more: str) -> set[str]:
        ran = cli(*argv, "--resume", *more)
        assert ran.code == 0, ran
        return {line["model"] for line in ran.lines[:-1] if not line["resumed"]}

    assert done() == set()
    job_models.mlp(Path("models/a.onnx"), seed=1)
    Path("out/b.inspection.json").unlink()
    Path("out/c.inspection.json").write_text("{}")
    assert done() == {"a.onnx", "b.onnx", "c.onnx"}
    assert json.loads(Path("out/c.inspection.json").read_text())["schema"] == "modelkit.inspection/1"
    data = bytearray(Path("models/digits_mlp_external.onnx.data").read_bytes())
    data[100] ^= 1
    Path("models/digits_mlp_external.onnx.data").write_bytes(data)
    assert done() == {"e.onnx"}
    job_models.mlp(Path("models/new.onnx"))
    Path("models/b.onnx").unlink()
    assert done() == {"new.onnx"}
    assert done("--workers", "2", "--timeout", "1h", "--memory", "2GB") == set()


def test_config_data_and_version_tell_runs_apart(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    job_models.mlp(Path("models/a.onnx"))
    np.savez("d.npz", x=np.zeros((8, 16), "f4"))
    argv = ["evaluate", "models", "-o", "out", "--json", "--resume", "--data", "d.npz", "--seconds", "0.001"]

    def resumed(*more: str) -> bool:
        return bool(cli(*argv, *more).lines[0]["resumed"])

    assert [resumed(), resumed()] == [False, True]
    assert [resumed("--batch", "2"), resumed("--batch", "2"), resumed()] == [False, True, False]
    np.savez("d.npz", x=np.ones((8, 16), "f4"))
    assert [resumed(), resumed()] == [False, True]
    monkeypatch.setattr("modelkit.batch.plan.VERSION", "99")
    assert [resumed(), resumed()] == [False, True]


def test_what_is_there_is_not_replaced_unasked(cli: Cli) -> None:
    job_models.mlp(Path("models/a.onnx"))
    job_models.mlp(Path("models/b.onnx"))
    Path("out").mkdir()
    Path("out/a.inspection.json").write_text("mine")
    ran = cli("inspect", "models", "-o", "out")
    assert ran.code == 2 and "'out/a.inspection.json' exists already" in ran.err and "--resume" in ran.err
    assert tree(Path("out")) == {"a.inspection.json"}
    ran = cli("inspect", "models", "-o", "out", "--resume", "--json")
    assert ran.code == 3 and ran.status == {"a.onnx": "failed", "b.onnx": "done"}
    assert Path("out/a.inspection.json").read_text() == "mine"
    assert cli("inspect", "models", "-o", "out").code == 2
    assert cli("inspect", "models", "-o", "out", "--force").code == 0
    assert Path("out/a.inspection.json").read_text() != "mine"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["quantize", "models"], "a folder of models needs a folder for the results"),
        (["quantize", "models", "-o", "models"], "is the folder of the models"),
        (["quantize", "models", "-o", "models/a.onnx"], "is a file"),
        (["quantize", "models", "-o", "out", "--explain"], "--explain is for one model"),
        (["quantize", "models", "-o", "out", "--workers", "0"], "--workers"),
        (["quantize", "models", "-o", "out", "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["quantize", "models", "-o", "out", "--memory", "1MB"], "--memory"),
        (["quantize", "models", "-o", "out", "--match", "*.pt"], "--match *.pt fits nothing"),
        (["quantize", "models", "-o", "out", "--data", "no.npz"], "'no.npz' does not exist"),
        (["quantize", "models/a.onnx", "--resume"], "--resume is for a folder of models"),
        (["quantize", "nothing", "--workers", "2"], "'nothing' is none"),
        (["quantize", "empty", "-o", "out"], "there is no model below 'empty'"),
        (["inspect", "models", "--resume"], "a folder of models needs a folder for the results"),
        (["inspect", "models/a.onnx", "-o", "x"], "--output is for a folder of models"),
        (["evaluate", "models/a.onnx", "models"], "comes alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_come_before_any_work(cli: Cli, argv: list[str], words: str) -> None:
    job_models.mlp(Path("models/a.onnx"))
    Path("empty").mkdir()
    before = tree(Path())
    ran = cli(*argv)
    assert ran.code == 2 and words in ran.err, ran
    assert len(ran.err.splitlines()) <= 2
    assert {name for name in tree(Path()) if "/.modelkit/" not in name} == before


def test_dry_run_shows_what_would_be_done(cli: Cli) -> None:
    job_models.mlp(Path("models/sub/a.onnx"))
    ran = cli("quantize", "models", "-o", "out", "--dry-run")
    assert ran.code == 0 and "sub/a.onnx  out/sub/a.int8.onnx" in ran.out
    assert not Path("out").exists()
    ran = cli("quantize", "models", "-o", "out", "--dry-run", "--json")
    assert ran.lines == [{"model": "sub/a.onnx", "output": "out/sub/a.int8.onnx"}]


def test_a_result_never_takes_the_place_of_a_model(cli: Cli) -> None:
    job_models.mlp(Path("models/models/y.onnx"))
    job_models.mlp(Path("models/y.int8.onnx"))
    before = tree(Path())
    ran = cli("quantize", "models", "-o", ".", "--force", *QUICK)
    assert ran.code == 2 and "'models/y.int8.onnx' is one of the models" in ran.err
    assert tree(Path()) == before


def test_checkpoints_count_where_they_can_be_read(cli: Cli) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    job_models.mlp(Path("models/a.onnx"))
    save_file({"weight": np.ones((4, 4), "f4")}, "models/w.safetensors")
    ran = cli("inspect", "models", "--json")
    assert ran.code == 0 and ran.lines[1]["figures"]["parameters"] == 16
    assert "w.safetensors" in cli("inspect", "models").out
    ran = cli("quantize", "models", "-o", "out", "--json", *QUICK)
    assert ran.code == 0 and ran.status == {"a.onnx": "done"}
    assert ran.lines[-1]["notes"] == ["left out, weights that need --arch or --input: w.safetensors"]
    ran = cli("quantize", "models", "-o", "out", "--json", "--resume", "--arch", "torch.nn:Identity", *QUICK)
    assert ran.code == 3 and ran.status == {"a.onnx": "done", "w.safetensors": "failed"}


def test_weights_keep_their_ending_and_are_done_again_where_they_are_gone(cli: Cli) -> None:
    import torch

    Path("models").mkdir()
    torch.save({"w": torch.ones(32, 32).tril()}, "models/a.pt")
    argv = ("prune", "models", "-o", "out", "--sparsity", "0.7", "--trust", "--resume", "--json")
    assert cli(*argv, "--dry-run").lines == [{"model": "a.pt", "output": "out/a.pruned.pt"}]
    assert cli(*argv).lines[0]["output"] == "a.pruned.pt"
    assert sorted(Path("out").glob("a.*")) == [
        Path(f"out/a.pruned.{end}") for end in ("plan.json", "pt", "report.json", "report.md")
    ]
    assert cli(*argv).lines[0]["resumed"]
    for name in ("a.pruned.pt", "a.pruned.plan.json"):
        Path("out", name).unlink()
        ran = cli(*argv)
        assert ran.code == 0 and not ran.lines[0]["resumed"] and Path("out", name).exists(), ran


def test_a_state_dict_beside_the_artifact_is_part_of_the_result(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    Path("models").mkdir()
    Path("nets.py").write_text("from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(16, 10))\n")
    monkeypatch.syspath_prepend(".")
    torch.save(torch.nn.Sequential(torch.nn.Linear(16, 10)).state_dict(), "models/a.pt")
    argv = ("prune", "models", "-o", "out", "--sparsity", "0.5", "--arch", "nets:make", "--input", "1x16", *FAST)
    argv = (*argv, "--json")
    assert cli(*argv).code == 0
    made = {Path(f"out/a.pruned.{end}") for end in ("onnx", "pt", "plan.json", "report.json", "report.md")}
    assert set(Path("out").glob("a.*")) == made
    assert cli(*argv, "--resume").lines[0]["resumed"]
    Path("out/a.pruned.pt").unlink()
    assert not cli(*argv, "--resume").lines[0]["resumed"] and Path("out/a.pruned.pt").exists()
    for path in made - {Path("out/a.pruned.plan.json")}:
        path.unlink()
    ran = cli(*argv)
    assert ran.code == 2 and "'out/a.pruned.plan.json' exists already" in ran.err


def test_two_commands_share_a_folder_of_results(cli: Cli) -> None:
    job_models.mlp(Path("models/a.onnx"))
    assert cli("inspect", "models", "-o", "out").code == 0
    assert cli("quantize", "models", "-o", "out", *QUICK).code == 0
    ran = cli("inspect", "models", "-o", "out", "--resume", "--json")
    assert ran.code == 0 and ran.lines[0]["resumed"]


def test_a_second_run_is_refused_and_told_who_holds_the_folder(cli: Cli) -> None:
    from modelkit.jobs.lock import FolderLock

    job_models.mlp(Path("models/a.onnx"))
    Path("out/.modelkit").mkdir(parents=True)
    with FolderLock(Path("out/.modelkit/lock"), Path("out")):
        for more in ([], ["--resume"], ["--force"]):
            ran = cli("inspect", "models", "-o", "out", *more)
            assert ran.code == 2 and f"in use by another run of modelkit: process {os.getpid()} on" in ran.err
    assert cli("inspect", "models", "-o", "out").code == 0


def test_a_folder_that_cannot_be_written(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    job_models.mlp(Path("models/a.onnx"))
    Path("file").write_text("")
    ran = cli("inspect", "models", "-o", "file/out")
    assert ran.code == 5 and "it, or one above it, is a file" in ran.err
    Path("out").mkdir(mode=0o555)
    if os.geteuid() == 0:  # permissions do not stop root
        make = Path.mkdir

        def refuse(path: Path, *args: Any, **more: Any) -> None:
            if path.name == ".modelkit":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            make(path, *args, **more)

        monkeypatch.setattr(Path, "mkdir", refuse)
    ran = cli("inspect", "models", "-o", "out")
    assert ran.code == 5 and "cannot write in the folder 'out': Permission denied" in ran.err
    assert not list(Path("out").iterdir())


def test_quiet_and_verbose(cli: Cli) -> None:
    job_models.mlp(Path("models/a.onnx"))
    ran = cli("inspect", "models", "-q")
    assert ran == (0, "", "")
    ran = cli("evaluate", "models", "--seconds", "0.3", "-v")
    assert "a.onnx: started" in ran.err and "[1/1] a.onnx: done" in ran.err
