"""Pruning weights that came without an architecture: there is no graph to run, so only their sizes can decide."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from modelkit.checkpoint.container import Container, read
from modelkit.checkpoint.outputs import is_alone
from modelkit.checkpoint.tell import is_state
from modelkit.decision import Decision
from modelkit.errors import BudgetError, ModelError, UsageError
from modelkit.files import Staging, check_outputs, file_record, require_file, sniff, write_json
from modelkit.graph.edit import Namer, add_initializer, make_node
from modelkit.measure.machine import machine_facts
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights.sparse import prune_by_magnitude
from modelkit.report.plan import Plan
from modelkit.report.report import Report, Side
from modelkit.report.write import write_report
from modelkit.transform import gates, verdict
from modelkit.transform.job import Job

_FLOATS = ("float16", "float32", "float64", "bfloat16")
_CHUNK = 1 << 20


def is_graphless(job: Job) -> bool:
    """Whether a job prunes a file of weights for which no architecture was named."""
    return job.command == "prune" and is_alone(job.loading) and is_state(job.model)


def prune_weights(job: Job, progress: Progress = silent) -> Report:
    """Zero the smallest weights of a state dict, and write it in the format that it had.

    Args:
        job: A job for which ``is_graphless`` holds.
        progress: Told how far the work is.

    Raises:
        UsageError: Something is asked that needs a graph.
        ModelError: The file is damaged, or nothing in it can be pruned.
        UnsafeError: The file holds more than tensors.
        BudgetError: The file did not become as small as asked.
    """
    config: PruneConfig = job.options.value
    _check(job, config)
    held = read(require_file(job.model), sniff(job.model), trust=job.loading.trust)
    outputs = job.outputs
    output, changes = outputs.artifact, outputs.plan
    assert changes is not None
    check_outputs(outputs.files, [job.model], force=job.force)
    progress("pruning weights", 0, 1)
    carrier = _carrier(held)
    decisions = prune_by_magnitude(carrier, config)
    changed = {d.target: _array(carrier, d.target) for d in decisions if d.action == "pruned"}
    if not changed:
        raise ModelError("nothing to prune: no tensor lost a weight", "modelkit inspect lists the tensors")
    with Staging(output.parent) as stage:
        plan = held.save(stage.path(output.name), changed, {name: {"action": "zeroed"} for name in changed})
        write_json(stage.path(changes.name), {"artifact": output.name, **plan})
        before = _size(held, {}, job.model)
        after = _size(held, changed, stage.path(output.name))
        checks = verdict.gates(config.budget, before=before, after=after, loss=None, agreement=None, speedup=None)
        report = Report(
            command="prune",
            status="done" if all(gate.ok for gate in checks) else "budget not met",
            before=Side(file_record(job.model), before),
            after=Side({**file_record(stage.path(output.name)), "name": output.name}, after),
            method="magnitude",
            speedup=None,
            fidelity=None,
            gates=checks,
            decisions=[*decisions, *_others(held, carrier)],
            notes=["without an architecture nothing could be run: how much the model lost is not known"],
            config=config.model_dump(mode="json"),
            origins=dict(job.options.origins),
            seed=config.seed,
            machine=machine_facts(),
        )
        write_report(report, stage, [path.name for path in outputs.reports])
        made = [output, changes] if report.status == "done" else []
        stage.publish([path.name for path in (*made, *outputs.reports)], force=job.force)
    if report.status != "done":
        hint = f"{outputs.report.name} tells what was done"
        raise BudgetError(f"the budget is missed: {gates.missed(checks)}", hint, report=report)
    return report


def plan_weights(job: Job) -> Plan:
    """Tell what ``prune_weights`` would do; nothing is written. Raises what that raises before it writes."""
    config: PruneConfig = job.options.value
    _check(job, config)
    held = read(require_file(job.model), sniff(job.model), trust=job.loading.trust)
    carrier = _carrier(held)
    decisions = prune_by_magnitude(carrier, config)
    size = job.model.stat().st_size
    return Plan(
        model=job.model.name,
        output=str(job.outputs.artifact),
        original_bytes=size,
        candidates=[{"name": "magnitude", "bytes": size, "reason": ""}],
        decisions=[*decisions, *_others(held, carrier)],
        data={},
        config=config.model_dump(mode="json"),
        origins=dict(job.options.origins),
    )


def _check(job: Job, config: PruneConfig) -> None:
    """Refuse whatever needs a graph, naming all of it."""
    budget = config.budget
    needs = {
        "--channels": config.channels is not None or config.structure.threshold is not None,
        f"method {config.method}": config.method in ("wanda", "obs"),
        "--data": job.data is not None,
        "--test": job.test is not None,
        "--finetune": config.finetune.epochs > 0,
        "--max-drop": budget.max_drop is not None,
        "--min-speedup": budget.min_speedup is not None,
        "--max-latency": budget.max_latency is not None,
    }
    asked = [name for name, given in needs.items() if given]
    if asked:
        raise UsageError(
            f"'{job.model.name}' holds weights and no architecture, and {', '.join(asked)} needs a graph to run",
            "--arch package.module:factory names what builds the module, --input 1x3x32x32:float32 what it is fed",
        )
    if config.sparsity is None and config.threshold is None and config.pattern is None:
        raise UsageError("how much should be pruned?", "give --sparsity 0.5 to zero half of the weights")


def _carrier(held: Container) -> ir.Model:
    """A graph that only holds the weights, each read by a layer of its rank, as torch stores layers.

    Two dimensions are a Linear's ``[outputs, inputs]``, more are a convolution's ``[outputs, inputs, ...]``.
    """
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="weights")
    model = ir.Model(graph, ir_version=10)
    namer = Namer(model)
    for key, ref in held.tensors.items():
        if ref.dtype not in _FLOATS or len(ref.shape) < 2 or 0 in ref.shape:
            continue
        weight = add_initializer(graph, namer(key), held.array(key))
        data = ir.Value(name=namer(f"{key}.input"), type=weight.type)
        graph.inputs.append(data)
        op = "Gemm" if len(ref.shape) == 2 else "Conv"
        layout: dict[str, object] = {"transB": 1} if op == "Gemm" else {}
        outputs = [namer(f"{key}.output")]
        node = make_node(op, [data, weight], outputs, name=namer(f"{key}.layer"), attributes=layout)
        graph.append(node)
        graph.outputs.extend(node.outputs)
    return model


def _array(carrier: ir.Model, name: str) -> np.ndarray:
    tensor = carrier.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def _others(held: Container, carrier: ir.Model) -> list[Decision]:
    """A decision for each tensor that no layer could hold."""
    found = []
    for key, ref in held.tensors.items():
        if key not in carrier.graph.initializers:
            reason = "one number for each channel" if ref.dtype in _FLOATS else f"stored as {ref.dtype}"
            found.append(Decision(key, "kept", reason))
    return found


def _size(held: Container, changed: dict[str, np.ndarray], file: Path) -> dict[str, Any]:
    """Bytes and parameters, by the names that a model's size has."""
    arrays = [changed[key] if key in changed else held.array(key) for key in held.tensors]
    packer, deflated = zlib.compressobj(6), 0
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            deflated += len(packer.compress(piece))
    return {
        "file_bytes": file.stat().st_size,
        "deflated_bytes": deflated + len(packer.flush()),
        "parameters": sum(array.size for array in arrays),
        "nonzero_parameters": sum(int(np.count_nonzero(array)) for array in arrays),
        "external_bytes": 0,
    }
