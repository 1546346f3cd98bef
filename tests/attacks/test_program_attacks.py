"""Hostile programs (.pt2, TorchScript): nothing of them runs before they were trusted."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_kit import CODE, COMMAND, COMMANDS, GOOD, Call, Capsys, as_pickle, in_zip, zip_of
from torch import nn

from modelkit.cli.app import run

pytestmark = pytest.mark.usefixtures("checkpoint_folder")


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
