"""A model as protobuf without its large weights, for the parts of onnx that copy what they get."""

from __future__ import annotations

import hashlib

import onnx
import onnx_ir as ir

from modelkit.graph.tensors import nbytes, slots

# Shape inference reads the values of shapes, axes and sizes; no such tensor is larger.
KEPT_BYTES = 8192
_LOCATION = "modelkit-stripped-"


def strip(model: ir.Model) -> tuple[onnx.ModelProto, list[ir.TensorProtocol]]:
    """Serialise a model with pointers in place of its large tensors.

    The C++ code of onnx copies such pointers without following them.

    Returns:
        The protobuf, and the tensors that ``restore`` puts back.
    """
    kept: list[ir.TensorProtocol] = []
    changed = []
    try:
        for slot in slots(model):
            if slot.tensor.dtype == ir.DataType.STRING:
                continue
            small = nbytes(slot.tensor) <= KEPT_BYTES
            if small and not isinstance(slot.tensor, ir.ExternalTensor):
                continue
            changed.append(slot)
            if small:
                slot.put(ir.Tensor(slot.tensor.numpy(), slot.tensor.dtype, name=slot.tensor.name))
                continue
            slot.put(
                ir.ExternalTensor(
                    f"{_LOCATION}{len(kept)}",
                    0,
                    nbytes(slot.tensor),
                    slot.tensor.dtype,
                    shape=ir.Shape(slot.tensor.shape.numpy()),
                    name=slot.tensor.name or "",
                )
            )
            kept.append(slot.tensor)
        return ir.serde.serialize_model(model), kept
    finally:
        for slot in changed:
            slot.put(slot.tensor)


def model_digest(model: ir.Model) -> str:
    """SHA-256 of what a model computes and is called: its graph and all its numbers."""
    proto, kept = strip(model)
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for tensor in kept:
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def restore(model: ir.Model, kept: list[ir.TensorProtocol]) -> None:
    """Put the tensors that ``strip`` took out into a model made from its protobuf, in place."""
    for slot in slots(model):
        if isinstance(slot.tensor, ir.ExternalTensor):
            location = str(slot.tensor.location)
            if location.startswith(_LOCATION):
                tensor = kept[int(location.removeprefix(_LOCATION))]
                slot.put(tensor)
                if isinstance(slot.owner, ir.Value):
                    tensor.name = slot.owner.name
