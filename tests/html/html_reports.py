"""Reports to make pages of, without the minutes that making them for real would take."""

from __future__ import annotations

from typing import Any

from modelkit.decision import Decision
from modelkit.report.report import Gate, Report, Side

MACHINE = {"cpu": "a processor", "cores": 2, "features": ["avx2"], "versions": {"modelkit": "0.1.0", "onnx": "1.0"}}


def side(name: str, size: int, latency: float, accuracy: float) -> Side:
    return Side(
        {"name": name, "bytes": size, "sha256": "0f" * 32},
        {
            "file_bytes": size,
            "deflated_bytes": size // 2,
            "parameters": 1000,
            "nonzero_parameters": 900,
            "external_bytes": 0,
            "macs": 12345,
        },
        {"median_ms": latency, "p95_ms": 1.2 * latency, "min_ms": latency, "runs": 100},
        {"accuracy": accuracy, "log_loss": 0.3},
    )


def candidate(name: str, status: str, size: int, speed: float, accuracy: float) -> dict[str, Any]:
    latency = {"median_ms": 2 / speed, "p95_ms": 3 / speed, "min_ms": 1.0, "runs": 50}
    return {
        "name": name,
        "status": status,
        "reason": "too slow" if status == "rejected" else "",
        "size": {"file_bytes": size, "deflated_bytes": size, "parameters": 9, "nonzero_parameters": 9},
        "fidelity": {"top1_agreement": accuracy, "sqnr_db": 30.0, "exact": False},
        "quality": {"accuracy": accuracy, "log_loss": 0.3},
        "latency": {**latency, "speedup": {"value": speed, "low": speed - 0.02, "high": speed + 0.02}},
    }


def layer(index: int) -> dict[str, Any]:
    size = 4000 * (1 + index % 7)
    figures = {"shape": [32, 16, 3, 3], "dtype": "float", "bytes": size, "parameters": size // 4, "macs": 1000}
    return {
        "name": f"/model/layers.{index}/attention/MatMul",
        "op": "MatMul" if index % 3 else "Conv",
        "weights": [f"layers.{index}.weight"],
        "before": figures,
        "after": {**figures, "bytes": size // 4, "dtype": "int8"},
    }


def decision(index: int) -> Decision:
    if index % 9 == 4:
        return Decision(f"layers.{index}.weight", "kept float", "scales would cost more than they save")
    return Decision(f"layers.{index}.weight", "quantized", "per channel, symmetric", {"sqnr_db": 30.0 + index % 20})


def history(epochs: int = 4) -> dict[str, Any]:
    return {
        "epochs": [
            {
                "number": number,
                "rate": 1e-3,
                "train_loss": None if number == 0 else 1 / (number + 1),
                "loss": 1.1 / (number + 1),
                "quality": 0.9 + 0.01 * number,
                "seconds": 0.5,
            }
            for number in range(epochs + 1)
        ],
        "best": 2,
        "rate": 1e-3,
        "trials": [],
        "batch": 32,
        "steps": 10,
        "task": "classification",
        "metric": "accuracy",
        "loss": "cross-entropy",
        "stopped": "finished",
        "device": "cpu",
        "samples": [100, 20],
        "notes": [],
    }


def report(layers: int = 12, *, trained: bool = True, status: str = "done") -> Report:
    """A report of a transform with everything that one can hold."""
    return Report(
        command="quantize",
        status=status,
        before=side("net.onnx", 400_000, 2.0, 0.95),
        after=side("net.int8.onnx", 110_000, 1.0, 0.94),
        method="static mse",
        speedup={"value": 2.0, "low": 1.95, "high": 2.05},
        fidelity={"top1_agreement": 0.99, "sqnr_db": 31.0, "exact": False},
        gates=[Gate("max_drop", "2 %", "1 %", status == "done")],
        candidates=[
            candidate("weights", "tried", 101_000, 1.0, 0.95),
            candidate("static mse", "chosen", 110_000, 2.0, 0.95),
            candidate("dynamic", "rejected", 105_000, 0.6, 0.94),
            {**candidate("hopeless", "failed", 0, 1.0, 0.0), "size": {}, "fidelity": None, "quality": None}
            | {"latency": None, "reason": "it cannot be made"},
        ],
        selection_quality={"accuracy": 0.95, "log_loss": 0.3},
        decisions=[*map(decision, range(layers)), Decision("/model/Add", "int8", "Add in an integer kernel")],
        layers=[*map(layer, range(layers))],
        history=[history()] if trained else [],
        normalisation=[Decision("/model/BatchNorm", "folded", "into the layer before it")],
        audit={
            "integer": 11,
            "float": 1,
            "conversions": 2,
            "kernels": {"QLinearConv": 4, "QLinearMatMul": 7, "MatMul": 1, "QuantizeLinear": 1, "Relu": 2},
            "unfused": [{"node": "/model/layers.4/attention/MatMul", "op": "MatMul", "reason": "kept float"}],
        },
        data={
            "selection": {"name": "d", "path": "d.npz", "count": 256, "labelled": True, "sha256": "ab" * 32},
            "test": {"name": "t", "path": "t.npz", "count": 1000, "labelled": True, "sha256": "cd" * 32},
        },
        notes=["the samples are few"],
        config={"bits": 8, "mode": "auto", "budget": {"max_drop": 0.02}, "include": []},
        origins={"bits": "--bits", "mode": "default", "budget.max_drop": "quantize.yaml:3"},
        seed=7,
        machine=MACHINE,
    )


def inspection(layers: int = 40) -> dict[str, Any]:
    """What ``inspect`` says of a model."""
    facts = [
        {
            "name": f"conv{index}",
            "op": "Conv",
            "input_shapes": [[1, 3, 8, 8]],
            "output_shape": [1, 8, 8, 8],
            "weights": [f"w{index}"],
            "weight_shapes": [[8, 3, 3, 3]],
            "parameters": 216 * (index + 1),
            "bytes": 864 * (index + 1),
            "macs": 13824,
            "weight_dtype": "float",
        }
        for index in range(layers)
    ]
    return {
        "schema": "modelkit.inspection/1",
        "file": {"name": "net.onnx", "bytes": 1000, "sha256": "0f" * 32},
        "size": {"file_bytes": 1000, "deflated_bytes": 900, "parameters": 10, "nonzero_parameters": 10},
        "facts": {
            "inputs": [{"name": "x", "dtype": "float", "shape": ["N", 3, 8, 8]}],
            "outputs": [{"name": "y", "dtype": "float", "shape": None}],
            "opset": 18,
            "domains": {"com.microsoft": 1},
            "ir_version": 10,
            "producer": "pytorch",
            "op_counts": {"Conv": layers, "Relu": 2},
            "parameters": 10,
            "parameter_bytes": 40,
            "macs": None,
            "macs_unknown": ["conv1"],
            "layers": facts,
            "quantized": {"scheme": "none", "counts": {}, "weights": 0},
            "blockers": [{"target": "conv1", "action": "limits", "reason": "few numbers", "numbers": {}}],
        },
        "notes": [],
    }


def weights() -> dict[str, Any]:
    """What ``inspect`` says of weights without an architecture."""
    return {
        "schema": "modelkit.state/1",
        "file": {"name": "net.safetensors", "bytes": 1000, "sha256": "0f" * 32},
        "kind": "safetensors",
        "state_dict": "model",
        "others": ["optimizer"],
        "contents": [],
        "metadata": {"format": "pt"},
        "parameters": 100,
        "bytes": 400,
        "zeros": 0.25,
        "tensors": [
            {"name": f"layer.{i}.weight", "shape": [4, 4], "dtype": "float32", "bytes": 64, "zeros": i / 10}
            for i in range(8)
        ],
    }


def comparison(models: int = 3) -> dict[str, Any]:
    """What ``evaluate`` says."""
    entries = []
    for index in range(models):
        latency = {"median_ms": 2 / (index + 1), "p95_ms": 3.0, "min_ms": 1.0, "runs": 100}
        first = index == 0
        gate = {"name": "max_drop", "asked": "2 %", "got": f"{index} %", "ok": index < 2}
        entries.append(
            {
                "name": f"net{index}.onnx",
                "file": {"name": f"net{index}.onnx", "bytes": 1000, "sha256": "0f" * 32},
                "size": {"file_bytes": 1000 - 100 * index, "deflated_bytes": 900, "parameters": 10}
                | {"nonzero_parameters": 10, "external_bytes": 0},
                "quality": {"accuracy": 0.95 - 0.01 * index},
                "fidelity": None if first else {"top1_agreement": 0.99, "sqnr_db": 30.0, "exact": False},
                "latency": latency,
                "gates": [] if first else [gate],
                "speedup": None if first else {"value": 1.0 + index, "low": 0.9 + index, "high": 1.1 + index},
            }
        )
    return {
        "schema": "modelkit.comparison/1",
        "models": entries,
        "data": {"name": "d", "path": "d.npz", "count": 256, "labelled": True, "sha256": "ab" * 32, "notes": []},
        "notes": ["latency was measured on a busy machine"],
        "seed": 0,
        "machine": MACHINE,
        "config": {"seed": 0, "measure": {"seconds": 2.0}},
        "origins": {"measure.seconds": "--seconds", "seed": "default"},
    }
