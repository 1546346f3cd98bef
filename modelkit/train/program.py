"""Compiles a graph once into a list of steps: what runs, from which slots, into which slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
import onnx.defs
import onnx_ir as ir
import torch
from torch import Tensor

from modelkit.errors import ModelError
from modelkit.graph.tensors import opset_of
from modelkit.train.ops.dtypes import carrier, tensor_of
from modelkit.train.ops.op import Moded, Op, Unsupported
from modelkit.train.ops.table import NEVER_FOLDED, OPS, READ_AS_NUMBERS

ABSENT = 0
_OLDEST_OPSET = 7
_FOLDED_BYTES = 1 << 24
_CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


@dataclass(frozen=True)
class Step:
    """One node, ready to run.

    Attributes:
        run: The kernel.
        inputs: The slots that it reads; 0 for an input that is absent.
        outputs: The slots that it fills; 0 for an output that nobody wants.
        to_device: Positions among the inputs of what was computed on the CPU and is needed beside weights.
        moded: Whether the kernel's first argument is whether this is training.
        name: The node, for messages.
        free: Slots that nothing reads any more after it.
    """

    run: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    to_device: tuple[int, ...]
    moded: bool
    name: str
    free: tuple[int, ...] = ()


@dataclass
class Program:
    """A compiled graph.

    Attributes:
        slots: Number of slots. Slot 0 always holds None.
        inputs: Name, slot and torch type of each input of the graph.
        outputs: Name, slot and ONNX type of each output.
        state: Slot of each initializer that is a parameter or a running statistic, by name.
        constants: Tensors that belong beside the weights, by slot.
        numbers: Tensors that stay on the CPU, by slot.
        steps: What runs, in order.
    """

    slots: int = 1
    inputs: list[tuple[str, int, torch.dtype]] = field(default_factory=list)
    outputs: list[tuple[str, int, ir.DataType]] = field(default_factory=list)
    state: dict[str, int] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    numbers: dict[int, Tensor] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


def compile_graph(
    model: ir.Model, state: Sequence[ir.Value], *, widen: bool, straight_through: bool = False
) -> Program:
    """Compile the graph of a model.

    Args:
        model: The model; it is only read.
        state: Initializers whose numbers may change: parameters and running statistics.
        widen: Whether float16 and bfloat16 are computed in float32.
        straight_through: Whether gradients pass through the rounding of ``QuantizeLinear``.

    Raises:
        ModelError: The graph has operators, types or attributes that cannot be run; all are named.
    """
    _refuse_unknown(model)
    compiler = _Compiler(model, state, widen, straight_through)
    compiler.compile()
    return compiler.program


def _refuse_unknown(model: ir.Model) -> None:
    """Refuse a graph before anything is computed, with every operator that is in the way."""
    problems: set[str] = set()
    control = False
    for node in model.graph:
        if node.domain:
            problems.add(f"{node.domain}.{node.op_type}")
        elif node.op_type not in OPS:
            problems.add(node.op_type)
            control = control or node.op_type in _CONTROL_FLOW
    if problems:
        hint = "train the network where it was built, or export it again without these"
        if control:
            hint = "export the model without control flow: it has no fixed graph to train"
        raise ModelError(f"the graph cannot be trained: no gradient for {', '.join(sorted(problems))}", hint)
    changed = sorted({node.op_type for node in model.graph if _meant_something_else(node.op_type, opset_of(model))})
    if changed:
        raise ModelError(
            f"the graph cannot be trained: in opset {opset_of(model)} {', '.join(changed)} meant something else",
            f"export the model with opset {_OLDEST_OPSET} or newer",
        )


def _meant_something_else(op: str, opset: int) -> bool:
    """Whether an operator of an old opset is not yet what it is in the oldest that is known here."""
    if opset >= _OLDEST_OPSET:
        return False
    try:
        then, later = (onnx.defs.get_schema(op, version, "") for version in (opset, _OLDEST_OPSET))
    except onnx.defs.SchemaError:
        return True
    return bool(then.since_version != later.since_version)


class _Compiler:
    def __init__(self, model: ir.Model, state: Sequence[ir.Value], widen: bool, straight_through: bool) -> None:
        self.program = Program()
        self._graph = model.graph
        self._opset = opset_of(model)
        self._widen, self._straight_through = widen, straight_through
        self._problems: list[str] = []
        self._slots: dict[int, int] = {}
        self._twins: dict[int, int] = {}
        self._state = {id(v) for v in state}
        self._known: dict[int, Tensor] = {}
        self._on_cpu: set[int] = set()

    def compile(self) -> None:
        steps: list[Step] = []
        self._read_graph()
        for node in self._graph:
            step = self._node(node)
            if step is not None:
                steps.append(step)
        for value in self._graph.outputs:
            kind = value.dtype or ir.DataType.FLOAT
            self.program.outputs.append((value.name or "", self._slot_of(value, numbers=False), kind))
        if self._problems:
            raise ModelError(
                f"the graph cannot be trained: {'; '.join(self._problems)}", "export it again without these"
            )
        self.program.steps = _freeing(steps, {slot for _, slot, _ in self.program.outputs})

    def _read_graph(self) -> None:
        for value in self._graph.inputs:
            try:
                kind = carrier(value.dtype or ir.DataType.FLOAT, self._widen)
            except Unsupported as problem:
                self._problems.append(f"the input '{value.name}': {problem}")
                kind = torch.float32
            if value.is_initializer():  # a default: the initializer stands for it
                continue
            self.program.inputs.append((value.name or "", self._new_slot(value), kind))
        for name, value in self._graph.initializers.items():
            if id(value) in self._state:
                self.program.state[name] = self._new_slot(value)
            elif value.const_value is not None and (value.uses() or value.is_graph_output()):
                try:
                    self._known[id(value)] = tensor_of(
                        value.const_value.numpy(), value.const_value.dtype, self._widen
                    )
                except Unsupported as problem:
                    self._problems.append(f"the initializer '{name}': {problem}")
                    self._new_slot(value)

    def _node(self, node: ir.Node) -> Step | None:
        """Compile a node; None where its result is known already."""
        name = node.name or node.outputs[0].name or "?"
        constants = [None if v is None else self._known.get(id(v)) for v in node.inputs]
        try:
            kernel = OPS[node.op_type](Op(node, self._opset, self._widen, constants, self._straight_through))
        except Unsupported as problem:
            self._problems.append(f"the {node.op_type} node '{name}': {problem}")
            for output in node.outputs:  # so that what comes after it can be looked at too
                self._new_slot(output)
            return None
        moded = isinstance(kernel, Moded)
        run = kernel.run if isinstance(kernel, Moded) else kernel
        label = f"{node.op_type} node '{name}'"
        everything = all(v is None or c is not None for v, c in zip(node.inputs, constants, strict=True))
        if everything and not moded and node.op_type not in NEVER_FOLDED and self._fold(node, run, constants):
            return None
        as_numbers = READ_AS_NUMBERS.get(node.op_type, ())
        aside = self._is_aside(node)
        inputs, moved = [], []
        for index, value in enumerate(node.inputs):
            numbers = aside or index in as_numbers
            inputs.append(ABSENT if value is None else self._slot_of(value, numbers))
            if value is not None and id(value) in self._on_cpu and not numbers:
                moved.append(index)
        outputs = []
        for value in node.outputs:
            used = value.uses() or value.is_graph_output()
            outputs.append(self._new_slot(value) if used else ABSENT)
            if aside:
                self._on_cpu.add(id(value))
        return Step(run, tuple(inputs), tuple(outputs), tuple(moved), moded, label)

    def _fold(self, node: ir.Node, run: Callable[..., Any], constants: Sequence[Tensor | None]) -> bool:
        """Compute a node now, where it depends on nothing that changes and its result is not huge."""
        try:
            with torch.no_grad():
                result = run(*constants)
        except (RuntimeError, ValueError, IndexError, TypeError, Unsupported):
            return False  # it fails when it runs, with its own message
        results = result if isinstance(result, tuple) else (result,)
        source = sum(c.nbytes for c in constants if c is not None)
        if sum(r.nbytes for r in results) > max(_FOLDED_BYTES, source):
            return False
        for value, tensor in zip(node.outputs, results, strict=False):
            self._known[id(value)] = tensor
        return True

    def _is_aside(self, node: ir.Node) -> bool:
        """Whether a node computes with shapes only: that stays on the CPU, whatever the weights are on."""
        if node.op_type in ("Shape", "Size"):
            return True
        given = [v for v in node.inputs if v is not None]
        return any(id(v) in self._on_cpu for v in given) and all(
            id(v) in self._on_cpu or id(v) in self._known for v in given
        )

    def _new_slot(self, value: ir.Value) -> int:
        slot = self._slots[id(value)] = self.program.slots
        self.program.slots += 1
        return slot

    def _slot_of(self, value: ir.Value, numbers: bool) -> int:
        """Slot of a value; a constant has one beside the weights and one on the CPU, each made when needed."""
        known = self._known.get(id(value))
        if known is None:
            return self._slots[id(value)]
        slots = self._twins if numbers else self._slots
        if id(value) not in slots:
            slots[id(value)] = self.program.slots
            self.program.slots += 1
            (self.program.numbers if numbers else self.program.constants)[slots[id(value)]] = known
        return slots[id(value)]


def _freeing(steps: list[Step], kept: set[int]) -> list[Step]:
    """Tell each step which slots it is the last to read."""
    last: dict[int, int] = {}
    for i, step in enumerate(steps):
        for slot in (*step.inputs, *step.outputs):
            last[slot] = i
    ends: dict[int, list[int]] = {}
    for slot, i in last.items():
        if slot != ABSENT and slot not in kept:
            ends.setdefault(i, []).append(slot)
    return [replace(step, free=tuple(sorted(ends.get(i, ())))) for i, step in enumerate(steps)]
