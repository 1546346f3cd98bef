"""Turns packed weights of a file back into plain ones, by numpy, before anything else looks at the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelkit.errors import ModelError
from modelkit.packing.body import DOMAIN
from modelkit.packing.catalog import by_name
from modelkit.packing.encoding import Encoding, Streams, functions, words_of
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
    known = dict(_known(proto))
    if not known:
        return []
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    calls = {node.output[0]: node for node in proto.graph.node if node.domain == DOMAIN and node.op_type in known}
    tables = {
        node.output[0]: node for node in proto.graph.node if node.domain == DOMAIN and node.op_type == STEPS.name
    }
    weights = [_weight(node, known[node.op_type], stored, tables) for node in calls.values()]
    _drop(proto.graph.node, lambda node: node.domain == DOMAIN and node.op_type in known)
    read = {name for node in nodes_in(proto.graph) for name in node.input} | {v.name for v in proto.graph.output}
    _drop(proto.graph.node, lambda node: node.output[0] in tables and node.output[0] not in read)
    unread = [node for name, node in tables.items() if name not in read]
    read = {name for node in nodes_in(proto.graph) for name in node.input} | {v.name for v in proto.graph.output}
    streams = {name for node in [*calls.values(), *unread] for name in node.input} - read
    _drop(proto.graph.initializer, lambda tensor: tensor.name in streams)
    proto.graph.initializer.extend(weights)
    written = known.keys() | _called(proto, known) | {STEPS.name}
    _drop(proto.functions, lambda each: each.domain == DOMAIN and each.name in known)
    if all(each.name in written for each in proto.functions if each.domain == DOMAIN):
        _drop(proto.functions, lambda each: each.domain == DOMAIN)
    if not any(each.domain == DOMAIN for each in proto.functions):
        _drop(proto.opset_import, lambda entry: entry.domain == DOMAIN)
    return [tensor.name for tensor in weights]


def _known(proto: onnx.ModelProto) -> Iterator[tuple[str, Encoding]]:
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    ours = {each.name: each for each in proto.functions if each.domain == DOMAIN}
    if STEPS.name in ours and ours[STEPS.name] != steps_function(opset):
        return
    for name in ours:
        encoding = by_name(name)
        if encoding is not None and all(ours.get(each.name) == each for each in functions(encoding, opset)):
            yield name, encoding


def _called(proto: onnx.ModelProto, known: dict[str, Encoding]) -> set[str]:
    """Names of the functions that those of encodings call."""
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    return {each.name for encoding in known.values() for each in functions(encoding, opset)}


def _weight(
    node: onnx.NodeProto,
    encoding: Encoding,
    stored: dict[str, onnx.TensorProto],
    tables: dict[str, onnx.NodeProto],
) -> onnx.TensorProto:
    name = node.output[0]
    try:
        attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        shape = attributes["shape"]
        tensors = [stored[each] for each in node.input[:-1]]
        table = _table(node.input[-1], stored, tables)
        kind = helper.np_dtype_to_tensor_dtype(table.dtype)
        count, width = math.prod(shape), table.dtype.itemsize
        if min(shape, default=0) < 0 or count * width > MAX_BYTES:
            raise ModelError(f"the packed weight '{name}' of shape {shape} is too large")
        arrays = dict(
            zip(encoding.inputs, [*(words_of(_array(each)) for each in tensors), words_of(table)], strict=True)
        )
        streams = Streams(arrays, {each: attributes[each][0] for each in encoding.attributes})
        flat = encoding.decode(streams, count)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        detail = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(
            f"the packed weight '{name}' is damaged: {detail}", "the file was changed after it was packed"
        ) from error
    return onnx.TensorProto(name=name, data_type=kind, dims=shape, raw_data=flat.tobytes())


def _table(name: str, stored: dict[str, onnx.TensorProto], tables: dict[str, onnx.NodeProto]) -> np.ndarray:
    """The numbers that codes stand for, in the weight's own type."""
    if name not in tables:
        return _array(stored[name])
    return multiples(*(_array(stored[each]) for each in tables[name].input))


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(f"'{tensor.name}' is in external data")
    return numpy_helper.to_array(tensor)


def _drop(field: Any, unwanted: Callable[[Any], bool]) -> None:
    """Take messages out of a repeated field."""
    for index in reversed(range(len(field))):
        if unwanted(field[index]):
            del field[index]
