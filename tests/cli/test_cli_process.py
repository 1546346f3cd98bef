"""modelkit as a process: start-up, signals, pipes, full disks."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_models import cli, listing, mlp

REPO = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(REPO)}
MODELKIT = [sys.executable, "-m", "modelkit"]
LONG = ["--set", "measure.seconds=60"]
QUICK = ["--set", "measure.seconds=0.001", "--objective", "size"]


def start(*argv: str, preexec: Callable[[], None] | None = None, **streams: object) -> subprocess.Popen[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [*MODELKIT, *argv], env=ENV, text=True, preexec_fn=preexec, **given
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out or "", err or ""


def test_help_is_quick_and_light(tmp_path: Path) -> None:
    # With compiled modules, as an installed package has them.
    env = {name: value for name, value in ENV.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    heavy = ["numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "rich", "pydantic", "yaml", "PIL", "pyarrow"]
    code = (
        "import sys, time\nbegan = time.process_time()\nfrom modelkit.cli.app import run\ncode = run(['--help'])\n"
        f"print(code, [name for name in {heavy} if name in sys.modules], time.process_time() - began)"
    )
    seconds = []
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        last = out.splitlines()[-1]
        assert last.startswith("0 [] "), last
        seconds.append(float(last.split()[-1]))
    assert min(seconds) < 0.2
    assert "quantize" in out and "modelkit [OPTIONS] COMMAND" in out


def test_usage_errors_load_nothing_heavy() -> None:
    heavy = ["numpy", "onnx", "onnx_ir", "onnxruntime", "torch"]
    for argv in (["quantize"], ["quantize", "m.onnx", "--nope"], ["--version"], ["schema"]):
        code = (
            f"import sys\nfrom modelkit.cli.app import run\nrun({argv})\n"
            f"print([name for name in {heavy} if name in sys.modules])"
        )
        out = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True).stdout
        assert out.splitlines()[-1] == "[]"


def test_quantize_never_loads_torch() -> None:
    mlp()
    code = (
        f"import sys\nfrom modelkit.cli.app import run\ncode = run(['quantize', 'm.onnx', '-q', *{QUICK}])\n"
        "print(code, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True).stdout
    assert out == "0 False\n"


def test_version() -> None:
    code, out, err = finish(start("--version"))
    assert (code, err) == (0, "") and out.startswith("modelkit 0.")


def test_a_whole_run(folder: Path) -> None:
    mlp()
    code, out, err = finish(start("quantize", "m.onnx", *QUICK))
    assert code == 0 and "file size" in out
    assert err.splitlines()[-1] == "wrote m.int8.onnx and its report"
    assert "\x1b" not in out + err and "Warning" not in err
    assert sorted(listing(folder)) == ["m.int8.onnx", "m.int8.report.json", "m.int8.report.md", "m.onnx"]


# --- signals --------------------------------------------------------------------------------------------------


def at_work(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run has written a candidate, so that there is something to clean up."""
    deadline = time.monotonic() + 40
    while not list(folder.rglob(".modelkit-*/new/candidate-*")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    time.sleep(0.3)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
)
def test_signals_leave_no_debris(folder: Path, number: signal.Signals, code: int, word: str) -> None:
    mlp()
    (folder / "m.int8.onnx").write_text("old")
    before = listing(folder)
    process = start("quantize", "m.onnx", "--force", *LONG)
    at_work(folder, process)
    process.send_signal(number)
    found, out, err = finish(process)
    assert (found, out) == (code, "")
    assert err.splitlines()[-1] == f"{word}; nothing was written"
    assert "Traceback" not in err
    assert listing(folder) == before


def test_two_signals_in_a_row(folder: Path) -> None:
    mlp()
    before = listing(folder)
    process = start("quantize", "m.onnx", *LONG)
    at_work(folder, process)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    assert listing(folder) == before


def test_interrupted_evaluation(folder: Path) -> None:
    mlp()
    before = listing(folder)
    process = start("evaluate", "m.onnx", "--verbose", *LONG)
    assert process.stderr is not None
    while "timing" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    found, out, err = finish(process)
    assert (found, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; nothing was written" and "Traceback" not in err
    assert listing(folder) == before


# --- pipes and files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [["inspect", "m.onnx"], ["inspect", "m.onnx", "--json"], ["schema", "quantize"], ["--help"]]
)
def test_broken_pipe_is_quiet(argv: list[str]) -> None:
    mlp()
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*argv, stdout=writer)
    os.close(writer)
    code, _, err = finish(process)
    assert (code, err) == (0, "")


def test_broken_pipe_does_not_hide_a_missed_budget(folder: Path) -> None:
    mlp()
    reader, writer = os.pipe()
    os.close(reader)
    process = start("quantize", "m.onnx", "--min-ratio", "30", *QUICK, stdout=writer)
    os.close(writer)
    code, _, err = finish(process)
    assert code == 1 and err.splitlines()[-2].startswith("error: ")
    assert "Traceback" not in err and "Exception ignored" not in err


def test_stdout_on_a_full_disk() -> None:
    mlp()
    with Path("/dev/full").open("w") as full:
        code, _, err = finish(start("inspect", "m.onnx", stdout=full))
    assert code == 5
    assert err == "error: the system refuses: No space left on device\n"


def test_closed_stdout() -> None:
    mlp()
    process = start("inspect", "m.onnx", preexec=lambda: os.close(1), stdout=None)
    code, _, err = finish(process)
    assert code in (0, 5) and "Traceback" not in err and "defect" not in err


def test_an_encoding_without_the_signs(folder: Path) -> None:
    mlp("mü.onnx")
    env = {**ENV, "PYTHONIOENCODING": "ascii"}
    for argv in (["quantize", "mü.onnx", *QUICK], ["quantize", "nü.onnx"]):
        done = subprocess.run([*MODELKIT, *argv], env=env, capture_output=True, check=False)
        assert done.returncode == (2 if "nü.onnx" in argv else 0), done.stderr
        assert (done.stdout + done.stderr).isascii() and b"Traceback" not in done.stderr


def test_a_name_that_is_not_utf8(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    name = os.fsdecode(b"m\xff.onnx")
    mlp(name)
    before = listing(folder)
    ran = cli(capsys, "quantize", name, *QUICK)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "error: onnxruntime cannot open 'm\\udcff.onnx': the name is not valid UTF-8",
        "hint: rename the file or its folder",
    ]
    assert cli(capsys, "inspect", name).out.startswith("m\\udcff.onnx\n")
    code, out, err = finish(start("inspect", name, "--json"))
    assert (code, err) == (0, "") and json.loads(out)["file"]["name"] == name
    assert listing(folder) == before


def limit(size: int) -> Callable[[], None]:
    """Let a process write no file larger than this: what a full disk is like."""

    def apply() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return apply


def test_full_disk_keeps_the_old_files(folder: Path) -> None:
    mlp()
    (folder / "m.int8.onnx").write_text("old")
    (folder / "m.int8.report.json").write_text("{}")
    before = listing(folder)
    # Enough for the models, not for the report, which comes last.
    code, out, err = finish(start("quantize", "m.onnx", "--force", *QUICK, preexec=limit(8200)))
    assert (code, out) == (5, ""), err
    first, hint = err.splitlines()[-2:]
    assert first.startswith("error: a file grew larger than the limits of '")
    assert hint == "hint: nothing was changed; free some space there or choose another folder with -o"
    assert listing(folder) == before


def test_no_space_at_all(folder: Path) -> None:
    mlp()
    before = listing(folder)
    code, out, err = finish(start("quantize", "m.onnx", *QUICK, preexec=limit(1000)))
    assert (code, out) == (5, "") and "Traceback" not in err
    assert err.splitlines()[-2].startswith("error: ") and err.splitlines()[-1].startswith("hint: ")
    assert listing(folder) == before


def test_full_temporary_folder(folder: Path) -> None:
    """The graph is checked in the system's temporary folder first; a full one is told, not a defect."""
    mlp()
    before = listing(folder)
    env = {**ENV, "TMPDIR": "/dev/null/nowhere"}
    done = subprocess.run([*MODELKIT, "quantize", "m.onnx", *QUICK], env=env, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "defect" not in done.stderr
    assert done.returncode in (0, 5)
    if done.returncode:
        assert listing(folder) == before
