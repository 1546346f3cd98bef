"""Hostile pickles as checkpoints: none runs, in whatever they are hidden; one line says why."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_kit import CODE, COMMAND, COMMANDS, Call, Capsys, as_pickle, attack, in_legacy, in_zip
from torch import nn

from modelkit.cli.app import run

pytestmark = pytest.mark.usefixtures("checkpoint_folder")


def text(module: str, name: str, *arguments: str) -> bytes:
    """A call by a GLOBAL opcode, in the oldest protocol."""
    pushed = b"".join(b"V" + each.encode() + b"\n" for each in arguments)
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + pushed + b"tR."


def stacked(module: str, name: str, argument: str) -> bytes:
    """A call by STACK_GLOBAL, whose name is put together on the stack."""

    def word(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + word(module) + b"\x94" + word(name) + b"\x94\x93\x94" + word(argument) + b"\x85R."


def _subprocess() -> object:
    import subprocess

    return Call(subprocess.Popen, ["sh", "-c", COMMAND])


def _partial() -> object:
    import functools

    return Call(map, functools.partial(os.system, COMMAND), [])


def _nested() -> object:
    return Call(pickle.loads, pickle.dumps(Call(os.system, COMMAND)))


def _torch_nested() -> object:
    inner = io.BytesIO()
    torch.save(Call(os.system, COMMAND), inner)
    return Call(torch.load, io.BytesIO(inner.getvalue()), None, None)


def _linecache() -> object:
    import runpy

    Path("evil.py").write_text(CODE)
    return Call(runpy.run_path, "evil.py")


def _ordered_with_factory() -> object:
    import collections

    made = collections.defaultdict(Exception)
    made["w"] = Call(os.system, COMMAND)
    return made


HOSTILE: dict[str, Callable[[], bytes | object]] = {
    "os.system": lambda: Call(os.system, COMMAND),
    "posix.system": lambda: text("posix", "system", COMMAND),
    "os.popen": lambda: Call(os.popen, COMMAND),
    "subprocess.Popen": _subprocess,
    "subprocess.check_output": lambda: text("subprocess", "check_output", COMMAND),
    "eval": lambda: Call(eval, CODE),
    "exec": lambda: Call(exec, CODE),
    "python 2 eval": lambda: text("__builtin__", "eval", CODE),
    "python 2 execfile": lambda: text("__builtin__", "execfile", "evil.py"),
    "compile": lambda: Call(compile, CODE, "x", "exec"),
    "__import__": lambda: Call(__import__, "evil"),
    "importlib": lambda: text("importlib", "import_module", "evil"),
    "getattr chain": lambda: Call(getattr, Call(__import__, "os"), "system"),
    "operator.attrgetter": lambda: text("operator", "attrgetter", "system"),
    "functools.partial": _partial,
    "runpy": _linecache,
    "timeit": lambda: text("timeit", "timeit", CODE),
    "pdb": lambda: text("pdb", "run", CODE),
    "code": lambda: text("code", "interact", CODE),
    "webbrowser": lambda: text("webbrowser", "open", "file:///etc/passwd"),
    "shutil.rmtree": lambda: text("shutil", "rmtree", "."),
    "open for writing": lambda: Call(open, "ran.txt", "w"),
    "pathlib unlink": lambda: text("pathlib", "Path.unlink", "net.py"),
    "socket": lambda: text("socket", "create_connection", "localhost"),
    "nested pickle": _nested,
    "torch.load inside": _torch_nested,
    "torch.hub.load": lambda: text("torch.hub", "load", "."),
    "torch.jit.load": lambda: text("torch.jit", "load", "x.pt"),
    "torch.utils.collect_env": lambda: text("torch.utils.collect_env", "run", COMMAND),
    "torch os attribute": lambda: text("torch", "os.system", COMMAND),
    "torch._C": lambda: text("torch._C", "import_ir_module_from_buffer", "x"),
    "torch.serialization.load": lambda: text("torch.serialization", "load", "evil.pt"),
    "numpy gadget": lambda: text("numpy.testing._private.utils", "runstring", CODE),
    "pip gadget": lambda: text("pip._internal", "main", "x"),
    "STACK_GLOBAL": lambda: stacked("posix", "system", COMMAND),
    "STACK_GLOBAL dotted": lambda: stacked("builtins", "getattr", "x"),
    "INST": lambda: b"(V" + COMMAND.encode() + b"\niposix\nsystem\n.",
    "OBJ": lambda: b"(cposix\nsystem\nV" + COMMAND.encode() + b"\no.",
    "NEWOBJ": lambda: (
        b"\x80\x02cposix\nsystem\nX" + struct.pack("<I", len(COMMAND)) + COMMAND.encode() + b"\x85\x81."
    ),
    "BUILD with setstate": lambda: (
        b"c__main__\nX\n)R}(V__setstate__\ncposix\nsystem\nubV" + COMMAND.encode() + b"\nb."
    ),
    "BUILD on a stand-in": lambda: b"ctorch._utils\n_rebuild_tensor_v2\n}(V__defaults__\n(lub0.",
    "memo swap": lambda: b"cposix\nsystem\np0\n0V" + COMMAND.encode() + b"\np1\n0g0\n(g1\ntR.",
    "memo far": lambda: b"\x80\x02]r\xff\xff\xff\x7f.",
    "extension registry": lambda: b"\x80\x02\x82\x01.",
    "persistent id": lambda: b"\x80\x02X\x01\x00\x00\x00aQ.",
    "in a list of tensors": lambda: [torch.ones(2), Call(os.system, COMMAND)],
    "as a key": lambda: {"w": torch.ones(2), Key(): 1},
    "as a value": lambda: {"w": torch.ones(2), "b": Call(os.system, COMMAND)},
    "in an OrderedDict's state": lambda: _with_state(),
    "defaultdict factory": _ordered_with_factory,
    "module with hook": lambda: _hooked(),
    "parameter's state": lambda: text("torch._utils", "_rebuild_parameter_with_state", COMMAND),
    "rebuild_from_type": lambda: text("torch._tensor", "_rebuild_from_type_v2", COMMAND),
}


class Key:
    """A key that is a call."""

    def __hash__(self) -> int:
        return 1

    def __reduce__(self) -> object:
        return os.system, (COMMAND,)


def _with_state() -> object:
    made: OrderedDict[str, object] = OrderedDict(w=torch.ones(2))
    made._metadata = Call(os.system, COMMAND)  # type: ignore[attr-defined]
    return made


class Hook:
    """Runs a command when it is loaded."""

    def __reduce__(self) -> object:
        return os.system, (COMMAND,)


def _hooked() -> object:
    net = nn.Linear(2, 2)
    net._forward_hooks[0] = Hook()  # type: ignore[assignment]
    return net


FORMS: dict[str, Callable[[bytes], bytes]] = {"bare": bytes, "zip": in_zip, "legacy": in_legacy}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_never_run(kind: str, form: str, capsys: Capsys) -> None:
    Path("evil.py").write_text(CODE)
    try:
        content = as_pickle(HOSTILE[kind]())
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        pytest.fail(f"the attack itself is wrong: {error}")
    attack(capsys, FORMS[form](content), COMMANDS if form == "zip" else COMMANDS[:2])


def test_the_attacks_would_work_on_a_plain_unpickler() -> None:
    """Otherwise they would prove nothing."""
    worked = 0
    for kind in (
        "os.system",
        "posix.system",
        "exec",
        "nested pickle",
        "STACK_GLOBAL",
        "INST",
        "memo swap",
        "as a key",
    ):
        Path("ran.txt").unlink(missing_ok=True)
        pickle.loads(as_pickle(HOSTILE[kind]()))
        worked += Path("ran.txt").exists()
    assert worked == 8


def test_the_older_tar_form(capsys: Capsys) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = as_pickle(Call(os.system, COMMAND))
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    attack(capsys, buffer.getvalue())


def test_optimised_and_damaged_pickles(capsys: Capsys) -> None:
    content = pickletools.optimize(as_pickle(Call(os.system, COMMAND)))
    attack(capsys, in_zip(content))
    for cut in range(1, len(content), 7):
        attack(capsys, in_zip(content[:cut]), COMMANDS[:1])


def test_every_changed_byte_of_a_real_file_is_survived(capsys: Capsys) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2, 3)}, buffer)
    content = buffer.getvalue()
    end = content.index(b"PK\x07\x08")
    for position in range(0, end, 3):
        Path("hostile.pt").write_bytes(
            content[:position] + bytes([content[position] ^ 0x5A]) + content[position + 1 :]
        )
        assert run(["inspect", "hostile.pt"]) in (0, 2, 4)
    capsys.readouterr()
