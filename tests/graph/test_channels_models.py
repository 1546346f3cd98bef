"""The samples, their awkward twins, and well-known nets: what can be cut is cut and runs, the rest has a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnx_ir as ir
import pytest
from channel_checks import check_cut, cut_everything, some_of

from modelkit.graph.channels import cut, find_groups
from modelkit.graph.edit import add_initializer
from modelkit.graph.lift import fix_defaults
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.tensors import constant_of

SAMPLES = Path(__file__).parents[2] / "sample_models"
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
QUANTIZED = ("fashion_cnn_qdq", "fashion_cnn_qoperator", "language_transformer_dynamic", "digits_mlp_if")
CUTTABLE = {"digits_mlp": 2, "fashion_cnn": 5, "language_gru": 2, "language_transformer": 5}


def prepared(path: Path) -> ir.Model:
    loaded = load(path).model
    normalise(loaded)
    return loaded


@pytest.mark.parametrize(
    "path", [*sorted(SAMPLES.glob("*.onnx")), *sorted(SAMPLES.glob("twins/*.onnx"))], ids=lambda p: p.stem
)
def test_samples(tmp_path: Path, path: Path) -> None:
    groups = cut_everything(prepared(path), tmp_path)
    free = [group for group in groups if group.frozen is None]
    parent = next(name for name in CUTTABLE if path.stem.startswith(name))
    assert len(free) == (0 if path.stem in QUANTIZED else CUTTABLE[parent])
    assert groups
    assert all(group.frozen for group in groups if group not in free)


def test_transformer() -> None:
    model = prepared(SAMPLES / "language_transformer.onnx")
    groups = {group.name: group for group in find_groups(model)}
    heads, stream, width = groups["node_MatMul_17"], groups["node_embedding"], groups["node_MatMul_52"]
    assert len(np.unique(heads.atoms)) == 4
    assert {part.value.name for part in heads.parts} >= {"layers.0.nearness", "layers.0.out.weight"}
    assert not stream.exact
    assert width.channels == 256
    assert len([p for p in stream.parts if p.kind == "produces"]) == 5


def filled(path: Path) -> ir.Model:
    """A model of onnx's own tests, its weights, which the file only describes, made of random numbers."""
    model = load(path).model
    fix_defaults(model)
    random = np.random.default_rng(0)
    for node in list(model.graph):
        shape = constant_of(node.inputs[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None:
            continue
        dims = tuple(int(d) for d in shape.numpy())
        fan = int(np.prod(dims[1:])) if len(dims) > 1 else 0
        numbers = random.standard_normal(dims, np.float32) / np.sqrt(fan) if fan else random.uniform(0.5, 1, dims)
        value = add_initializer(model.graph, f"{node.outputs[0].name}.filled", numbers.astype(np.float32))
        node.outputs[0].replace_all_uses_with(value)
        model.graph.remove(node, safe=True)
    normalise(model)
    return model


@pytest.mark.parametrize(
    ("name", "free", "frozen"),
    [
        ("squeezenet", 25, 1),
        ("resnet50", 37, 1),
        ("inception_v2", 69, 1),
        ("densenet121", 120, 1),
        ("shufflenet", 12, 6),
    ],
)
def test_well_known_nets(tmp_path: Path, name: str, free: int, frozen: int) -> None:
    model = filled(LIGHT / f"light_{name}.onnx")
    groups = find_groups(model)
    counts = Counter(group.frozen is None for group in groups)
    assert (counts[True], counts[False]) == (free, frozen)
    keep = {g.name: kept for g in groups if g.frozen is None and (kept := some_of(g)) is not None}
    assert len(keep) == free
    if name in ("squeezenet", "shufflenet"):
        check_cut(model, keep, tmp_path, changes=name != "shufflenet")
    else:
        cut(model, keep)
        onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
