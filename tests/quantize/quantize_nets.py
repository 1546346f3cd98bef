"""Small nets with known weights, and what the tests do with them: run, save, look at onnxruntime's graph."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from modelkit.data.dataset import Batch
from modelkit.graph.normalise import normalise
from modelkit.graph.opset import ensure_opset
from modelkit.graph.run import session_of
from modelkit.graph.save import save
from modelkit.measure.machine import int8_kind
from modelkit.quantize.affine import sqnr_db
from modelkit.quantize.calibrate import observe
from modelkit.quantize.canonical import canonicalise
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.plan import Plan, make_plan
from modelkit.quantize.ranges import choose_range
from modelkit.quantize.static import ActivationType, apply_static
from modelkit.runtime import make_session

# As the command does: without VNNI sums of 8-bit products saturate.
WEIGHT_BITS = 7 if int8_kind() == "avx2" else 8

FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32


class Net:
    """Builds a graph node by node; weights are drawn from a seeded generator."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.count = 0

    def input(self, name: str, shape: Sequence[int | str | None], dtype: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, shape: Sequence[int | str | None] | None = None, dtype: int = FLOAT) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def const(self, array: np.ndarray, name: str | None = None) -> str:
        name = name or self._fresh("c")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, name: str | None = None, scale: float | None = None) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        numbers = self.rng.standard_normal(shape) * (scale if scale is not None else 1 / np.sqrt(max(fan_in, 1)))
        return self.const(numbers.astype(np.float32), name)

    def ints(self, *numbers: int) -> str:
        return self.const(np.array(numbers, dtype=np.int64))

    def add(self, op: str, *inputs: str, out: str | Sequence[str] | None = None, name: str = "", **attributes):
        """Append a node; returns its output's name, or a list where several are asked for."""
        self.count += 1
        names = [out or f"t{self.count}"] if out is None or isinstance(out, str) else list(out)
        name = name or f"{op.lower()}{self.count}"
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names[0] if len(names) == 1 else names

    def conv(self, x: str, channels_in: int, channels: int, kernel: int = 3, group: int = 1, bias=True, **attributes):
        weight = self.weight(channels, channels_in // group, kernel, kernel)
        inputs = [x, weight] + ([self.weight(channels, scale=0.1)] if bias else [])
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.add("Conv", *inputs, group=group, kernel_shape=[kernel, kernel], **attributes)

    def proto(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10 if self.opset > 20 else 8)

    def build(self) -> ir.Model:
        model = ir.serde.deserialize_model(self.proto())
        normalise(model)
        return model

    def _fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"


def run(model: ir.Model, feeds: Mapping[str, np.ndarray], optimize: bool = True) -> list[np.ndarray]:
    return session_of(model, optimize=optimize).run(None, dict(feeds))


def optimised(model: ir.Model, folder: Path) -> onnx.ModelProto:
    """What onnxruntime makes of a model when it loads it."""
    path, target = folder / "model.onnx", folder / "optimised.onnx"
    save(model, path)
    make_session(path, optimized_path=target)
    return onnx.load(target)


def kernels(proto: onnx.ModelProto) -> Counter[str]:
    """How often each operator is in a graph and in its subgraphs."""
    found: Counter[str] = Counter()
    graphs = [proto.graph]
    while graphs:
        for node in graphs.pop().node:
            found[node.op_type] += 1
            graphs.extend(a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
    return found


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.all_nodes())


def closeness(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The least SQNR of all outputs, in dB; shapes and types must be equal."""
    worst = float("inf")
    assert len(expected) == len(actual)
    for a, b in zip(expected, actual, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and np.isfinite(b).all()
        worst = min(worst, sqnr_db(a, b))
    return worst


def batches(*feeds: Mapping[str, np.ndarray], valid: int | None = None):
    """Turn arrays into what the calibrator reads, one batch each."""
    return lambda: iter([Batch(dict(feed), None, valid or len(next(iter(feed.values())))) for feed in feeds])


def static(
    model: ir.Model, *feeds: Mapping[str, np.ndarray], method="minmax", signed=False, bits=WEIGHT_BITS, **how
) -> Plan:
    """Static int8 as the command does it; ``how`` holds options of the plan and of weights."""
    ensure_opset(model, 13)
    canonicalise(model)
    known = {"include": [], "exclude": [], "arithmetic": True, "keep_float": frozenset()}
    options = {name: how.pop(name, default) for name, default in known.items()}
    plan = make_plan(model, **options)
    names = [str(value.name) for value in plan.activations]
    seen = observe(model, names, batches(*feeds), count=len(feeds))
    ranges = {name: choose_range(histogram, method) for name, histogram in seen.items()}
    apply_static(model, plan, ranges, ActivationType(signed, bits), WeightOptions(**how))
    return plan


def conversions(proto: onnx.ModelProto) -> tuple[int, int]:
    """QuantizeLinear and DequantizeLinear nodes that onnxruntime left."""
    found = kernels(proto)
    return found["QuantizeLinear"], found["DequantizeLinear"]
