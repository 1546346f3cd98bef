"""Hostile checkpoints: whatever is in them, nothing of it runs, nothing absurd is allocated, one line says why."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from modelkit.cli.app import run

Capsys = pytest.CaptureFixture[str]
COMMAND = "echo ran > ran.txt"
CODE = "open('ran.txt', 'w').write('ran')"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef make():\n    return nn.Linear(4, 4)\n")
    return tmp_path


class Call:
    """Pickles as a call of something."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> object:
        return self.parts


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


def as_pickle(made: bytes | object) -> bytes:
    if isinstance(made, bytes):
        return made
    return pickle.dumps(made, 2)


def in_zip(content: bytes, name: str = "x/data.pkl", **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("x/version", b"3\n")
        for member, data in more.items():
            archive.writestr(f"x/{member}", data)
    return buffer.getvalue()


def in_legacy(content: bytes) -> bytes:
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    return head + content + pickle.dumps([], 2)


FORMS: dict[str, Callable[[bytes], bytes]] = {"bare": bytes, "zip": in_zip, "legacy": in_legacy}
COMMANDS = (
    ["inspect", "hostile.pt"],
    ["inspect", "hostile.pt", "--arch", "net:make", "--input", "1x4"],
    ["quantize", "hostile.pt", "--arch", "net:make", "--input", "1x4"],
    ["prune", "hostile.pt", "--sparsity", "0.5"],
)


def attack(capsys: Capsys, content: bytes, commands: tuple[list[str], ...] = COMMANDS) -> list[str]:
    """Feed a file to the commands; each must refuse it in one line, and nothing may have happened."""
    Path("hostile.pt").write_bytes(content)
    before = sorted(Path().iterdir())
    said = []
    for argv in commands:
        capsys.readouterr()
        code = run(list(argv))
        err = capsys.readouterr().err
        assert not Path("ran.txt").exists(), f"{argv[0]} ran it"
        assert sorted(Path().iterdir()) == before
        assert "defect" not in err and "Traceback" not in err, err
        # What only lists tensors may list those of a file that also holds other things.
        listed = argv == ["inspect", "hostile.pt"] and code == 0
        assert code in (2, 4) or listed, f"{argv}: {code}: {err}"
        assert listed or err.startswith("error: ")
        said.append(err)
    return said


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


# Archives


def zip_of(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = pickle.dumps({"a": 1}, 2)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of(("x/data.pkl", GOOD), ("x/data/0", bytes(1 << 24)), compression=zipfile.ZIP_DEFLATED), "compressed"),
        (zip_of(("x/data.pkl", GOOD), ("x/data.pkl", GOOD)), "twice"),
        (zip_of(("x/data.pkl", GOOD), ("y/data.pkl", GOOD)), "several folders"),
        (zip_of(("x/data.pkl", GOOD), ("x/../../evil", b"x")), "a member named"),
        (zip_of(("x/data.pkl", GOOD), ("/etc/x", b"x")), "several folders|a member named"),
        (zip_of(("x\\data.pkl", GOOD), ("x/data.pkl", GOOD)), "a member named|several folders"),
    ],
    ids=["bomb", "twice", "two folders", "dots", "absolute", "backslash"],
)
def test_archives_that_torch_would_not_write(content: bytes, message: str, capsys: Capsys) -> None:
    import re

    for said in attack(capsys, content):
        assert re.search(message, said), said


def test_overlapping_members(capsys: Capsys) -> None:
    content = bytearray(zip_of(("x/data.pkl", GOOD), ("x/data/0", bytes(4000))))
    # The first member's size in the archive's list becomes that of both together.
    start = content.index(b"PK\x01\x02")
    size = struct.unpack("<I", content[start + 24 : start + 28])[0] + 2000
    content[start + 20 : start + 28] = struct.pack("<II", size, size)
    assert all("overlap" in said for said in attack(capsys, bytes(content)))


def test_a_list_that_differs_from_the_members(capsys: Capsys) -> None:
    content = zip_of(("x/data.pkl", GOOD), ("x/data/0", b"0123"))
    at = content.index(b"x/data/0")
    attack(capsys, content[:at] + b"x/data/1" + content[at + 8 :])


# Tensors that cannot be


def state(shape: object, strides: object, *, count: int = 4, stored: bytes = bytes(16), offset: object = 0) -> bytes:
    """A state dict with one tensor, described at will."""

    def number(value: object) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: object) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"  # type: ignore[attr-defined]

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(strides)
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    content = b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s."
    return zip_of(("x/data.pkl", content), ("x/version", b"3\n"), ("x/data/0", stored))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (state((1 << 40, 1 << 20), (0, 0)), "repeats its numbers"),
        (state((1 << 20, 4), (0, 1)), "repeats its numbers"),
        (state((3, 2), (1, 1)), "repeats its numbers"),
        (state((1 << 40,), (1,)), "reaches beyond"),
        (state((2, 2), (2, 1), offset=1), "reaches beyond"),
        (state((4,), (-1,)), "cannot be"),
        (state((4,), (1,), offset=-1), "cannot be"),
        (state((4,), (1, 1)), "cannot be"),
        (state((4,), (1,), count=1 << 50), "says that a storage has"),
        (state((4,), (1,), count=3), "says that a storage has"),
        (state((4,), (1,), count=-1), "not one that torch wrote"),
    ],
)
def test_tensors_that_cannot_be(content: bytes, message: str, capsys: Capsys) -> None:
    for said in attack(capsys, content):
        assert message in said, said


def test_the_same_tensor_as_it_should_be() -> None:
    Path("good.pt").write_bytes(state((2, 2), (2, 1)))
    assert run(["inspect", "good.pt"]) == 0


def test_an_older_file_that_announces_more_than_it_has(capsys: Capsys) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4)}, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    # BININT1 4 of the storage becomes 2**40 numbers.
    at = content.index(b"cpu") + 3
    assert b"K\x04" in content[at : at + 8]
    position = content.index(b"K\x04", at)
    huge = b"\x8a\x08" + struct.pack("<q", 1 << 40)
    attack(capsys, content[:position] + huge + content[position + 2 :])
    attack(capsys, content[:-8])


# Safetensors


def safetensors(header: object, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text_ = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text_) if length is None else length) + text_ + data


def entry(begin: int = 0, end: int = 16, shape: tuple[int, ...] = (4,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": entry(), "b": entry(8, 24)}, bytes(24)),
        safetensors({"a": entry(0, 16), "b": entry(0, 16)}),
        safetensors({"a": entry(0, 1 << 50, (1 << 48,))}),
        safetensors({"a": entry(shape=(1 << 62, 4))}),
        safetensors({"a": entry(shape=(2**32, 2**32))}),
        safetensors({"a": entry(16, 0)}),
        safetensors({"a": entry(4, 20)}, bytes(20)),
        safetensors({"a": entry(dtype="F99")}),
        safetensors({"a": entry()}, bytes(3)),
        safetensors({"a": entry()}, bytes(64)),
        safetensors({"a": entry()}, length=90_000_000),
        safetensors({"a": entry()}, length=99_999_999_999),
        safetensors(b"{" * 50_000),
        safetensors(b'{"a":' * 20_000),
        safetensors({"a": {"dtype": "F32"}}),
        safetensors({"a": entry(), "__metadata__": {"x": {"y": 1}}}),
        safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],'
                    b'"data_offsets":[0,16]}}'),
        safetensors({"__metadata__": {"x": "y"}}, b""),
        safetensors({}, b""),
    ],
)  # fmt: skip
def test_hostile_safetensors(content: bytes, capsys: Capsys) -> None:
    Path("hostile.pt").write_bytes(content)
    for argv in COMMANDS:
        code = run(list(argv))
        err = capsys.readouterr().err
        assert code in (2, 4) and err.startswith("error: ") and "defect" not in err, err


# Programs


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a real .pt2."""
    path = tmp_path_factory.mktemp("program") / "x.pt2"
    axes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(nn.Linear(4, 4), (torch.ones(2, 4),), dynamic_shapes=axes), path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(program: dict[str, bytes], **edits: object) -> bytes:
    """The archive with one edit of its program or its table of weights."""
    made = dict(program)
    for end, edit in edits.items():
        name = next(name for name in made if name.endswith(f"{end}.json"))
        content = json.loads(made[name])
        edit(content)  # type: ignore[operator]
        made[name] = json.dumps(content).encode()
    return zip_of(*made.items())


def node(content: dict[str, object]) -> dict[str, object]:
    return content["graph_module"]["graph"]["nodes"][0]  # type: ignore[index, no-any-return]


def placeholder(content: dict[str, object], name: str) -> None:
    """Give an input another name, everywhere."""
    text_ = json.dumps(content).replace('"input"', json.dumps(name))
    content.clear()
    content.update(json.loads(text_))


def expression(content: dict[str, object], text_: str) -> None:
    for meta in content["graph_module"]["graph"]["tensor_values"].values():  # type: ignore[index]
        meta["sizes"] = [{"as_expr": {"expr_str": text_, "hint": {"as_int": 2}}}, {"as_int": 4}]


EVIL = "__import__('os').system('echo ran > ran.txt')"
PROGRAMS: dict[str, Callable[[dict[str, object]], object]] = {
    "target": lambda c: node(c).update(target="torch.os.system"),
    "target through torch": lambda c: node(c).update(target="torch.utils.collect_env.run"),
    "target through operator": lambda c: node(c).update(target="_operator.methodcaller"),
    "target through math": lambda c: node(c).update(target="math.__loader__.load_module"),
    "target of files": lambda c: node(c).update(target="torch.ops.aten.from_file.default"),
    "target of an extension": lambda c: node(c).update(target="#x:y"),
    "target of a custom operator": lambda c: node(c).update(target="torch.ops.evil.run.default"),
    "text for an operator": lambda c: node(c)["inputs"].append(  # type: ignore[attr-defined]
        {"name": "filename", "arg": {"as_string": "/etc/passwd"}, "kind": 1}
    ),
    "operator as an argument": lambda c: node(c)["inputs"].append(  # type: ignore[attr-defined]
        {"name": "f", "arg": {"as_operator": "torch.os.system"}, "kind": 1}
    ),
    "size": lambda c: expression(c, EVIL),
    "size by attribute": lambda c: expression(c, "Symbol.__class__"),
    "size by lambda": lambda c: expression(c, "lambda: 1"),
    "size by a word": lambda c: expression(c, "exec(Integer(1))"),
    "size by a string": lambda c: expression(c, "Symbol('os')"),
    "size by a power": lambda c: expression(c, "Pow(Integer(9), Pow(Integer(9), Integer(99)))"),
    "name of an input": lambda c: placeholder(c, f"x={EVIL}"),
    "name with a line": lambda c: placeholder(c, f"x):\n  {EVIL}\n  def f(y"),
    "name of a node": lambda c: node(c).update(name=f"y=({EVIL})"),
    "name of a weight": lambda c: c["graph_module"]["signature"]["input_specs"][0]["parameter"].update(  # type: ignore[index]
        parameter_name=f"weight[{EVIL}]"
    ),
    "tree": lambda c: c["graph_module"]["module_call_graph"][0]["signature"].update(  # type: ignore[index]
        in_spec='[1, {"type": "collections.defaultdict", "context": "{\\"default_factory_module\\": \\"evil\\"}",'
        ' "children_spec": []}]'
    ),
    "tree of a class": lambda c: c["graph_module"]["module_call_graph"][0]["signature"].update(  # type: ignore[index]
        out_spec='[1, {"type": "evil.Evil", "context": "null", "children_spec": []}]'
    ),
    "tree keys": lambda c: c["graph_module"]["module_call_graph"][0]["signature"].update(  # type: ignore[index]
        in_spec='[1, {"type": "builtins.dict", "context": "[\\"x[1]\\"]", "children_spec": []}]'
    ),
    "custom object": lambda c: c["graph_module"]["graph"].update(  # type: ignore[index]
        custom_obj_values={"o": {"name": "o", "class_fqn": "evil.Evil"}}
    ),
}


def pt2(capsys: Capsys, content: bytes, code: int = 4) -> str:
    Path("hostile.pt2").write_bytes(content)
    Path("evil.py").write_text(CODE)
    got = run(["inspect", "hostile.pt2"])
    err = capsys.readouterr().err
    assert not Path("ran.txt").exists()
    assert got == code and err.startswith("error: ") and "defect" not in err, (got, err)
    return err


@pytest.mark.parametrize("kind", PROGRAMS)
def test_hostile_programs_never_run(kind: str, program: dict[str, bytes], capsys: Capsys) -> None:
    said = pt2(capsys, changed(program, model=PROGRAMS[kind]))
    assert "can run code while it is loaded" in said and "--trust" in said


def test_a_hostile_size_would_run_in_torch(program: dict[str, bytes]) -> None:
    """Otherwise refusing them would prove nothing."""
    import contextlib

    Path("x.pt2").write_bytes(changed(program, model=PROGRAMS["size"]))
    with contextlib.suppress(Exception):
        torch.export.load("x.pt2").module()
    assert Path("ran.txt").exists()


def test_the_program_itself_is_read(program: dict[str, bytes], capsys: Capsys) -> None:
    Path("good.pt2").write_bytes(zip_of(*program.items()))
    assert run(["inspect", "good.pt2"]) == 0
    assert "--trust" not in capsys.readouterr().out


def test_guards_and_notes_are_left_out(program: dict[str, bytes], capsys: Capsys) -> None:
    """They are Python, and nobody needs them."""

    def edit(content: dict[str, object]) -> None:
        content["guards_code"] = [EVIL]
        node(content)["metadata"] = {"stack_trace": EVIL, "source_fn_stack": "x,torch.os.system", "custom": EVIL}

    Path("good.pt2").write_bytes(changed(program, model=edit))
    assert run(["inspect", "good.pt2"]) == 0
    assert not Path("ran.txt").exists()


def test_hostile_sample_inputs_are_left_out(program: dict[str, bytes]) -> None:
    name = next(name for name in program if name.endswith("sample_inputs/model.pt"))
    Path("good.pt2").write_bytes(zip_of(*(program | {name: in_zip(as_pickle(Call(os.system, COMMAND)))}).items()))
    assert run(["inspect", "good.pt2"]) == 0
    assert not Path("ran.txt").exists()


def weights(**values: object) -> Callable[[dict[str, object]], None]:
    def edit(content: dict[str, object]) -> None:
        entry_ = next(iter(content["config"].values()))  # type: ignore[attr-defined]
        entry_["tensor_meta"].update({k: v for k, v in values.items() if k in entry_["tensor_meta"]})
        entry_.update({k: v for k, v in values.items() if k in entry_})

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (weights(use_pickle=True), "is pickled"),
        (weights(path_name="opaque_obj_0"), "is no tensor"),
        (weights(path_name="../../x"), "is no tensor"),
        (weights(sizes=[{"as_int": 1 << 40}] * 2, strides=[{"as_int": 0}] * 2), "repeats its numbers"),
        (weights(sizes=[{"as_int": 1 << 40}] * 2), "reaches beyond"),
    ],
)
def test_hostile_weights_of_a_program(
    edit: Callable[..., None], message: str, program: dict[str, bytes], capsys: Capsys
) -> None:
    assert message in pt2(capsys, changed(program, model_weights_config=edit))


def test_pickled_weights_and_compiled_code(program: dict[str, bytes], capsys: Capsys) -> None:
    folder = next(iter(program)).split("/")[0]
    evil = in_zip(as_pickle(Call(os.system, COMMAND)))
    assert "older form" in pt2(capsys, zip_of(*program.items(), (f"{folder}/data/weights/model.pt", evil)))
    compiled = (f"{folder}/data/aotinductor/model/x.so", b"\x7fELF")
    assert "compiled code" in pt2(capsys, zip_of(*program.items(), compiled))
    pt2(capsys, zip_of(("serialized_exported_program.json", b"{}"), ("serialized_state_dict.pt", evil)))
    pt2(capsys, zip_of(*program.items(), (f"{folder}/models/other.json", b"{}")), code=2)


def test_torchscript_is_never_loaded_without_trust(capsys: Capsys) -> None:
    torch.jit.script(nn.Linear(4, 4)).save("hostile.pt")
    with zipfile.ZipFile("hostile.pt", "a") as archive:
        archive.writestr("hostile/data/evil.pkl", as_pickle(Call(os.system, COMMAND)))
    for argv in (*COMMANDS, ["evaluate", "hostile.pt"]):
        assert run(list(argv)) == 4
        assert "is TorchScript" in capsys.readouterr().err


def test_a_torchscript_bomb(capsys: Capsys) -> None:
    bomb = zip_of(("x/code/a.py", bytes(1 << 27)), ("x/constants.pkl", GOOD), compression=zipfile.ZIP_DEFLATED)
    Path("hostile.pt").write_bytes(bomb)
    assert run(["inspect", "hostile.pt", "--trust", "--input", "1x4"]) == 4
    assert "compressed" in capsys.readouterr().err
