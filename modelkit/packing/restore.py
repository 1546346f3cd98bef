"""Turns packed weights of a file back into plain ones, by numpy, before anything else looks at the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from modelkit.errors import ModelError
from modelkit.packing.body import DOMAIN
from modelkit.packing.catalog import by_name
from modelkit.packing.encoding import Encoding, Streams, functions, words_of
from modelkit.packing.fours import KINDS, fours_function, narrowed
from modelkit.packing.steps import STEPS, multiples, steps_function
from modelkit.protos import nodes_in

MAX_BYTES = 1 << 34
"""A few bytes can stand for a tensor of any size; what would be larger than this is refused."""


def restore(proto: onnx.ModelProto) -> list[str]:
    """Replace every call of a packing function by the weight that it gives, in place.

    Only functions whose body is, byte for byte, the one that belongs to its name are known by it. Others stay
    what they are: ordinary functions.

    Args:
        proto: A model whose streams are inside the file.

    Returns:
        Names of the weights that were packed, in order.

    Raises:
        ModelError: A weight's streams contradict each other, or it would be too large.
    """
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    known = dict(_known(proto, opset))
    if not known:
        return []
    packed = _Packed(proto, known, _helpers(proto, opset))
    weights = packed.weights()
    _drop(proto.graph.node, lambda node: node.output[0] in packed.gone)
    read = {name for node in nodes_in(proto.graph) for name in node.input} | {v.name for v in proto.graph.output}
    _drop(proto.graph.initializer, lambda tensor: tensor.name in packed.streams - read)
    proto.graph.initializer.extend(weights)
    written = known.keys() | _helpers(proto, opset) | _called(known, opset)
    _drop(proto.functions, lambda each: each.domain == DOMAIN and each.name in known)
    if all(each.name in written for each in proto.functions if each.domain == DOMAIN):
        _drop(proto.functions, lambda each: each.domain == DOMAIN)
    if not any(each.domain == DOMAIN for each in proto.functions):
        _drop(proto.opset_import, lambda entry: entry.domain == DOMAIN)
    return [tensor.name for tensor in weights]


def _known(proto: onnx.ModelProto, opset: int) -> Iterator[tuple[str, Encoding]]:
    ours = {each.name: each for each in proto.functions if each.domain == DOMAIN}
    for name in ours:
        encoding = by_name(name)
        if encoding is not None and all(ours.get(each.name) == each for each in functions(encoding, opset)):
            yield name, encoding


def _helpers(proto: onnx.ModelProto, opset: int) -> set[str]:
    """Names of the functions in front of encodings and behind them, where their bodies are ours."""
    made = {STEPS.name: steps_function(opset), **{name: fours_function(name, opset) for name in KINDS}}
    return {each.name for each in proto.functions if each.domain == DOMAIN and made.get(each.name) == each}


def _called(known: dict[str, Encoding], opset: int) -> set[str]:
    """Names of the functions that those of encodings call."""
    return {each.name for encoding in known.values() for each in functions(encoding, opset)}


class _Packed:
    """The packed weights of a model.

    Args:
        proto: The model.
        known: Encodings by the names of their functions.
        helpers: Names of the other functions that take part.

    Attributes:
        gone: Outputs of the calls that are no longer needed.
        streams: Names of the initializers that these read.
    """

    def __init__(self, proto: onnx.ModelProto, known: dict[str, Encoding], helpers: set[str]) -> None:
        self._known = known
        self._stored = {tensor.name: tensor for tensor in proto.graph.initializer}
        ours = [node for node in proto.graph.node if node.domain == DOMAIN]
        self._calls = {node.output[0]: node for node in ours if node.op_type in known}
        self._tables = {node.output[0]: node for node in ours if node.op_type == STEPS.name and STEPS.name in helpers}
        self._fours = {
            node.input[0]: node
            for node in ours
            if node.op_type in KINDS and node.op_type in helpers and node.input[0] in self._calls
        }
        self.gone: set[str] = set()
        self.streams: set[str] = set()

    def weights(self) -> list[onnx.TensorProto]:
        """What the calls give, in order."""
        return [self._weight(node) for node in self._calls.values()]

    def _weight(self, node: onnx.NodeProto) -> onnx.TensorProto:
        last = self._fours.get(node.output[0], node)
        name, table = last.output[0], node.input[-1]
        try:
            found = self._numbers(node, name)
            if last is not node:
                found = narrowed(found, KINDS[last.op_type])
        except (KeyError, IndexError, ValueError, TypeError) as error:
            detail = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
            raise ModelError(
                f"the packed weight '{name}' is damaged: {detail}", "the file was changed after it was packed"
            ) from error
        self.gone |= {node.output[0], name}
        self.streams |= set(node.input)
        if table in self._tables:
            self.gone.add(table)
            self.streams |= set(self._tables[table].input)
        return numpy_helper.from_array(found, name)

    def _numbers(self, node: onnx.NodeProto, name: str) -> np.ndarray:
        encoding = self._known[node.op_type]
        attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        shape = attributes["shape"]
        tensors = [self._stored[each] for each in node.input[:-1]]
        table = self._table(node.input[-1])
        if min(shape, default=0) < 0 or math.prod(shape) * table.dtype.itemsize > MAX_BYTES:
            raise ModelError(f"the packed weight '{name}' of shape {shape} is too large")
        parts = [*(words_of(_array(each)) for each in tensors), words_of(table)]
        arrays = dict(zip(encoding.inputs, parts, strict=True))
        streams = Streams(arrays, {each: attributes[each][0] for each in encoding.attributes})
        return encoding.decode(streams, math.prod(shape)).view(table.dtype).reshape(shape)

    def _table(self, name: str) -> np.ndarray:
        """The numbers that codes stand for, in the weight's own type."""
        if name not in self._tables:
            return _array(self._stored[name])
        return multiples(*(_array(self._stored[each]) for each in self._tables[name].input))


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(f"'{tensor.name}' is in external data")
    return numpy_helper.to_array(tensor)


def _drop(field: Any, unwanted: Callable[[Any], bool]) -> None:
    """Take messages out of a repeated field."""
    for index in reversed(range(len(field))):
        if unwanted(field[index]):
            del field[index]
