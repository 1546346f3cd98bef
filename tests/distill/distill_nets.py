"""Small networks as files, for students and teachers."""

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL, DATA, TEST = (SAMPLES / f"digits_mlp.{end}" for end in ("onnx", "calib.npz", "eval.npz"))
QUICK = {
    **{"measure.seconds": 0.05, "training.epochs": 4, "training.learning_rate": 0.003, "training.threads": 1},
    **{"structure.repair": "none", "structure.importance": "l2", "baseline": False},
}


def mlp(
    path: Path,
    sizes: tuple[int, ...] = (64, 24, 10),
    *,
    names: tuple[str, str] = ("image", "logits"),
    batch: int | str = "batch",
    softmax: bool = False,
    batchnorm: bool = False,
    more: tuple[int, ...] = (),
    seed: int = 0,
) -> Path:
    """A network of Gemm and Relu with random weights (He's), as a file; ``more`` are widths of further outputs."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], names[0]

    def add(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        final = number == len(sizes) - 2
        here = names[1] if final and not softmax else f"sum{number}"
        weight = add(f"{number}.weight", random.standard_normal((inputs, outputs)) * (2 / inputs) ** 0.5)
        nodes.append(helper.make_node("Gemm", [last, weight, add(f"{number}.bias", np.zeros(outputs))], [here]))
        if batchnorm and not final:
            values = {"scale": 1, "shift": 0, "mean": 0, "variance": 1}
            facts = [add(f"{number}.{fact}", np.full(outputs, value)) for fact, value in values.items()]
            nodes.append(helper.make_node("BatchNormalization", [here, *facts], [f"norm{number}"]))
            here = f"norm{number}"
        if not final:
            nodes.append(helper.make_node("Relu", [here], [f"relu{number}"]))
        last = f"relu{number}" if not final else here
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], [names[1]], axis=1))
    for number, width in enumerate(more):
        weight = add(f"more{number}.weight", random.standard_normal((sizes[-2], width)) * (2 / sizes[-2]) ** 0.5)
        nodes.append(helper.make_node("MatMul", [f"relu{len(sizes) - 3}", weight], [f"more{number}"]))
    outputs = {names[1]: sizes[-1], **{f"more{number}": width for number, width in enumerate(more)}}
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [batch, sizes[0]])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, width]) for n, width in outputs.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def unlabelled(path: Path, rows: slice = slice(None)) -> Path:
    """The inputs of the sample's data without their labels."""
    np.savez(path, **{name: array[rows] for name, array in np.load(DATA).items() if name != "labels"})
    return path
