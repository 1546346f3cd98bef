"""Stores the weights of a model in their packed forms, each rebuilt by a call of a function in the same file."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, prepend
from modelkit.graph.opset import ensure_opset
from modelkit.graph.patterns import check_patterns, chosen
from modelkit.graph.tensors import nbytes, opset_of
from modelkit.pack.choose import Offer, choose, entropy_bytes, function_bytes, functions_of
from modelkit.packing.body import DOMAIN, LEAST_OPSET
from modelkit.packing.catalog import offers
from modelkit.packing.encoding import TABLE, Words, functions
from modelkit.packing.fours import fours_function, fours_name, widened
from modelkit.packing.steps import STEPS, steps_function, steps_of
from modelkit.progress import Progress, silent

SMALL_BYTES = 256
"""Below this a weight takes less room than the node that would rebuild it."""

_TYPES = {
    *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16),
    *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16),
    *(ir.DataType.INT4, ir.DataType.UINT4),
    *(ir.DataType.INT32, ir.DataType.UINT32, ir.DataType.INT64, ir.DataType.UINT64),
}


def pack_weights(
    model: ir.Model,
    *,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    prefix: bool = True,
    seconds: float = math.inf,
    fours: bool = True,
    progress: Progress = silent,
) -> list[Decision]:
    """Store weights in fewer bytes, in place and without changing a bit of any.

    Weights with few values, or with many zeros, are stored as in "Deep Compression" (Han, Mao and Dally, 2016).
    Nothing but standard operators is needed to read them: onnxruntime rebuilds each while it loads the model.

    Args:
        model: A model from ``load``, weights lifted out of ``Constant`` nodes. Its opset is raised to 18 where it is
            older and something is packed.
        include: Name patterns of weights and nodes; empty means all.
        exclude: Name patterns of what stays as it is.
        prefix: Whether codes of several lengths are open, which take the fewest bytes and the longest to load.
        seconds: What may be added to the time that loading takes, roughly.
        fours: Whether weights of 4-bit types are open, which onnxruntime makes out of bytes from 1.23 on; where it
            has to do so in any case they always are.
        progress: Called once for each weight.

    Returns:
        A decision for every weight of 256 bytes and more, packed or kept.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: The model's opset cannot be raised.
    """
    names = names_of_large(model, include, exclude)
    weights = {name: model.graph.initializers[name] for name in names}
    kept: dict[str, str] = {}
    found: dict[str, list[Offer]] = {}
    floor: dict[str, float] = {}
    for index, (name, value) in enumerate(weights.items()):
        progress("looking at weights", index, len(weights))
        reason = chosen(names[name], include or [], exclude or []) or _must_stay(value, fours)
        if reason is not None:
            kept[name] = reason
            continue
        words = _words(value)
        behind = fours_name(_kind(value))
        found[name] = [
            Offer.of(name, encoding, size, words, behind) for encoding, size in offers(words, prefix=prefix)
        ]
        floor[name] = entropy_bytes(words)
    progress("looking at weights", len(weights), len(weights))
    best = choose(found, {name: _size(weights[name]) for name in found}, seconds=seconds)
    for name in found.keys() - best.keys():
        kept[name] = "no encoding takes less room: it has too many different values and too few zeros"
    decisions = [Decision(name, "kept", reason) for name, reason in kept.items()]
    if best:
        upgraded = ensure_opset(model, LEAST_OPSET)
        decisions += [upgraded] if upgraded else []
        decisions += _store(model, best, floor, progress)
    return sorted(decisions, key=lambda decision: decision.target)


def names_of_large(
    model: ir.Model, include: list[str] | None = None, exclude: list[str] | None = None
) -> dict[str, list[str]]:
    """Names of the weights that are looked at, each with what patterns can name it by.

    Raises:
        UsageError: A pattern matches nothing.
    """
    weights = {name: value for name, value in model.graph.initializers.items() if _size(value) >= SMALL_BYTES}
    names = {name: [name, *sorted({use.node.name or "" for use in value.uses()})] for name, value in weights.items()}
    for patterns, option in ((include, "include"), (exclude, "exclude")):
        check_patterns(patterns or [], [each for group in names.values() for each in group if each], option)
    return names


def anything_smaller(
    model: ir.Model, include: list[str] | None, exclude: list[str] | None, *, fours: bool = True
) -> bool:
    """Whether any weight takes fewer bytes in some encoding, which is soon known where there are such weights."""
    for name, known in names_of_large(model, include, exclude).items():
        value = model.graph.initializers[name]
        if chosen(known, include or [], exclude or []) is not None or _must_stay(value, fours) is not None:
            continue
        if any(size < _size(value) for _, size in offers(_words(value), prefix=False)):
            return True
    return False


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else nbytes(value.const_value)


def _must_stay(value: ir.Value, fours: bool) -> str | None:
    """Why an initializer must stay one, or None."""
    if value.is_graph_input():
        return "it is an input that has a default"
    if value.is_graph_output():
        return "it is an output of the model"
    if value.const_value is None or value.const_value.dtype not in _TYPES:
        return f"its type {value.const_value.dtype.name if value.const_value else '?'} is as small as it gets"
    foreign = sorted({f"{use.node.domain}:{use.node.op_type}" for use in value.uses() if use.node.domain})
    if foreign:
        return f"{foreign[0]} may need it while the model is being loaded"
    if not value.uses():
        return "nothing reads it"
    if fours_name(_kind(value)) and not fours and not any(use.node.op_type == "Cast" for use in value.uses()):
        return "onnxruntime before 1.23 makes no numbers of 4 bits; effort size packs it for newer ones"
    return None


def _words(value: ir.Value) -> Words:
    return Words.of(_array(value))


def _array(value: ir.Value) -> np.ndarray:
    """The numbers of a weight; of a 4-bit type as bytes."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    return widened(array, _kind(value)) if fours_name(_kind(value)) else array


def _kind(value: ir.Value) -> int:
    assert value.const_value is not None
    return int(value.const_value.dtype)


def _store(model: ir.Model, best: dict[str, Offer], floor: dict[str, float], progress: Progress) -> list[Decision]:
    """Put streams, calls and functions into the model."""
    opset, namer = opset_of(model), Namer(model)
    decisions, calls = [], []
    for index, (name, offer) in enumerate(best.items()):
        progress("packing weights", index, len(best))
        value = model.graph.initializers[name]
        before = _size(value)
        calls += _calls(model.graph, value, offer, namer)
        decisions.append(
            Decision(
                name,
                "packed",
                f"as {offer.encoding.name}: the smallest of the encodings that fit",
                {
                    "bytes_before": before,
                    "bytes": offer.streams,
                    "entropy_bytes": round(floor[name]),
                    **({"over_entropy": round(offer.streams / floor[name], 3)} if floor[name] >= 1 else {}),
                    "numbers": _count(value),
                    "bits_per_number": round(8 * offer.streams / _count(value), 3),
                },
            )
        )
    prepend(model.graph, calls)
    for encoding in {offer.encoding.name: offer.encoding for offer in best.values()}.values():
        for proto in functions(encoding, opset):
            _add_function(model, proto)
    if any(offer.steps for offer in best.values()):
        _add_function(model, steps_function(opset))
    for behind in sorted({offer.fours for offer in best.values() if offer.fours}):
        _add_function(model, fours_function(behind, opset))
    model.opset_imports[DOMAIN] = 1
    decisions.append(_fixed_costs(best))
    progress("packing weights", len(best), len(best))
    return decisions


def _add_function(model: ir.Model, proto: onnx.FunctionProto) -> None:
    made = ir.serde.deserialize_function(proto)
    model.functions[made.identifier()] = made


def _fixed_costs(best: dict[str, Offer]) -> Decision:
    """What there is once however large the weights are, and for each weight whatever its size."""
    names = functions_of(best.values())
    calls = sum(offer.total - offer.streams for offer in best.values())
    return Decision(
        "functions",
        "added",
        f"{', '.join(sorted(names))}: rebuild the weights when the model is loaded",
        {"bytes": function_bytes(names), "call_bytes": calls, "calls": len(best)},
    )


def _count(value: ir.Value) -> int:
    assert value.const_value is not None
    return value.const_value.size


def _calls(graph: ir.Graph, value: ir.Value, offer: Offer, namer: Namer) -> list[ir.Node]:
    """Replace an initializer by calls, the last of which gives the same value under the same name."""
    tensor = value.const_value
    assert tensor is not None and value.name is not None
    encoding, numbers = offer.encoding, _array(value)
    dtype = tensor.dtype if offer.fours is None else ir.DataType.from_numpy(numbers.dtype)
    streams = encoding.encode(Words.of(numbers))
    inputs, before = [], list[ir.Node]()
    for each in encoding.inputs:
        array = streams.arrays[each]
        own = each == TABLE
        array = array.view(numbers.dtype) if own else array
        if own and offer.steps:
            before = [_table_call(graph, value, array, namer)]
            inputs.append(before[0].outputs[0])
        else:
            inputs.append(add_initializer(graph, namer(f"{value.name}.{each}"), array, dtype if own else None))
    attributes: dict[str, list[int]] = {"shape": list(tensor.shape.numpy())}
    attributes |= {name: [count] for name, count in streams.attributes.items()}
    name = value.name
    del graph.initializers[name]
    output = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
    output.metadata_props.update(value.metadata_props)
    output.doc_string = value.doc_string
    made = output if offer.fours is None else ir.Value(name=namer(f"{name}.x"))
    call = ir.node(encoding.name, inputs, attributes, domain=DOMAIN, outputs=[made], name=namer(f"{name}.unpack"))
    value.replace_all_uses_with(output)
    if offer.fours is None:
        return [*before, call]
    return [*before, call, ir.node(offer.fours, [made], domain=DOMAIN, outputs=[output])]


def _table_call(graph: ir.Graph, value: ir.Value, table: np.ndarray, namer: Namer) -> ir.Node:
    """A call that gives a table of multiples of a number."""
    found = steps_of(table)
    assert found is not None
    inputs = [add_initializer(graph, namer(f"{value.name}.{n}"), x) for n, x in zip("ks", found, strict=True)]
    return ir.node(STEPS.name, inputs, domain=DOMAIN, outputs=[ir.Value(name=namer(f"{value.name}.{TABLE}"))])
