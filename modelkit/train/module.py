"""The trainable graph: an ONNX graph as a torch module, and its numbers written back into the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from modelkit.errors import ModelError
from modelkit.train.ops.dtypes import leave, tensor_of
from modelkit.train.ops.op import Unsupported
from modelkit.train.parameters import running_statistics, trained
from modelkit.train.program import Program, compile_graph


class GraphModule(nn.Module):
    """A graph that torch runs, with gradients.

    Made by ``to_torch``. In training mode ``BatchNormalization`` uses the batch's statistics and updates
    the running ones, and ``Dropout`` drops, as torch's own layers do; in ``eval`` mode the module computes
    what the graph computes.

    Args:
        program: The compiled graph.
        parameters: The numbers of each parameter, by the initializer's name.
        statistics: The running statistics, likewise.
    """

    def __init__(self, program: Program, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._program = program
        self._parameter_names: dict[str, str] = {}
        self._statistic_names: dict[str, str] = {}
        for name, tensor in parameters.items():
            attribute = self._parameter_names[name] = self._free_name(name)
            self.register_parameter(attribute, nn.Parameter(tensor))
        for name, tensor in statistics.items():
            attribute = self._statistic_names[name] = self._free_name(name)
            self.register_buffer(attribute, tensor)
        self._constant_names: list[tuple[int, str]] = []
        for slot, tensor in program.constants.items():
            self._constant_names.append((slot, f"constant_{slot}"))
            self.register_buffer(f"constant_{slot}", tensor, persistent=False)
        # They have their own tensors now.
        program.constants = {}

    def _free_name(self, name: str) -> str:
        """An attribute for an initializer: its name without what Python and torch do not allow in one."""
        wish = "value_" + re.sub(r"\W", "_", name)
        attribute, number = wish, 2
        while hasattr(self, attribute):
            attribute, number = f"{wish}_{number}", number + 1
        return attribute

    @property
    def initializers(self) -> dict[str, nn.Parameter]:
        """The parameters by the names that the graph's initializers have."""
        return {name: self.get_parameter(attribute) for name, attribute in self._parameter_names.items()}

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Running means and variances of BatchNormalization, by initializer."""
        return {name: self.get_buffer(attribute) for name, attribute in self._statistic_names.items()}

    def current(self) -> dict[str, Tensor]:
        """What the graph finds in each initializer that may change, now and with gradients."""
        names = {**self._parameter_names, **self._statistic_names}
        return {name: getattr(self, attribute) for name, attribute in names.items()}

    @property
    def input_names(self) -> list[str]:
        """Names of the graph's inputs."""
        return [name for name, _, _ in self._program.inputs]

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            inputs: A tensor for each input of the graph, by name, on the module's device. Numbers are
                converted to the type that the graph declares (float16 and bfloat16 to float32).

        Returns:
            The outputs by name, in the order of the graph.

        Raises:
            ModelError: An input is missing or unknown, or a node cannot run on what it is given.
        """
        self._check(inputs)
        program = self._program
        values: list[Tensor | None] = [None] * program.slots
        for slot, number in program.numbers.items():
            values[slot] = number
        for slot, attribute in self._constant_names:
            values[slot] = getattr(self, attribute)
        current = self.current()
        for name, slot in program.state.items():
            values[slot] = current[name]
        for name, slot, kind in program.inputs:
            given = inputs[name]
            values[slot] = given if given.dtype == kind else given.to(kind)
        training, device = self.training, self._device(inputs)
        for step in program.steps:
            arguments = [values[slot] for slot in step.inputs]
            for index in step.to_device:
                arguments[index] = _on(arguments[index], device)
            try:
                result = step.run(training, *arguments) if step.moded else step.run(*arguments)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, IndexError, TypeError, Unsupported) as error:
                text = " ".join(str(error).split())[:300]
                raise ModelError(f"the {step.name} cannot run: {text}", "check the shapes of the inputs") from error
            if isinstance(result, tuple):
                for slot, tensor in zip(step.outputs, result, strict=False):
                    values[slot] = tensor
            else:
                values[step.outputs[0]] = result
            values[0] = None  # where outputs go that nobody wants
            for slot in step.free:
                values[slot] = None
        found: dict[str, Tensor] = {}
        for name, slot, dtype in program.outputs:
            tensor = values[slot]
            assert tensor is not None
            found[name] = leave(tensor, dtype)
        return found

    def _check(self, inputs: Mapping[str, Tensor]) -> None:
        wanted = self.input_names
        missing = [name for name in wanted if name not in inputs]
        unknown = [name for name in inputs if name not in wanted]
        if missing or unknown:
            problems = [f"'{n}' is missing" for n in missing] + [f"'{n}' is not an input" for n in unknown]
            raise ModelError(f"the inputs do not fit the graph: {', '.join(problems)}", f"it has {', '.join(wanted)}")

    def _device(self, inputs: Mapping[str, Tensor]) -> torch.device:
        for tensor in (*self.parameters(), *self.buffers(), *inputs.values()):
            return tensor.device
        return torch.device("cpu")


def _on(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return tensor if tensor is None or tensor.device == device else tensor.to(device)


def to_torch(model: ir.Model, *, widen: bool = True) -> GraphModule:
    """Make a trainable module of a model; it starts in training mode, as every torch module does.

    Weights in ``Constant`` nodes are no initializers and are not trained: ``graph.normalise`` lifts them.
    The module has its own copy of all numbers.

    Args:
        model: A model whose functions are inlined; it is only read.
        widen: Compute float16 and bfloat16 in float32, in which training is stable. False computes them
            as they are.

    Raises:
        ModelError: The graph has control flow, unknown or custom operators, or asks for something that
            cannot be done; all of it is named in the one error.
    """
    parameters = trained(model.graph)
    statistics = running_statistics(model.graph)
    program = compile_graph(model, [*parameters, *statistics], widen=widen)
    return GraphModule(
        program,
        {v.name or "": numbers_of(v, widen) for v in parameters},
        {v.name or "": numbers_of(v, widen) for v in statistics},
    )


def numbers_of(value: ir.Value, widen: bool = True) -> Tensor:
    """Copy an initializer's numbers; `widen` as in ``to_torch``."""
    tensor = value.const_value
    assert tensor is not None
    return tensor_of(tensor.numpy(), tensor.dtype, widen)


@torch.no_grad()
def write_back(module: GraphModule, model: ir.Model) -> list[str]:
    """Write what a module's initializers hold into the graph that it was made of, in place.

    Each tensor keeps its name and element type. One whose numbers are the same, bit for bit, is left
    alone, so that a model that was not trained is saved as the same bytes.

    Args:
        module: From ``to_torch``.
        model: The same model, or a copy of it.

    Returns:
        Names of the initializers that changed, in the order of the module.

    Raises:
        ModelError: The model lacks an initializer, or has it in another shape; nothing was written then.
    """
    state = module.current()
    problems = []
    for name, tensor in state.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            problems.append(f"'{name}' is missing")
        elif tuple(value.const_value.shape.numpy()) != tuple(tensor.shape):
            shape = "x".join(map(str, value.const_value.shape.numpy()))
            problems.append(f"'{name}' is {shape}, not {'x'.join(map(str, tensor.shape))}")
    if problems:
        raise ModelError(f"the weights do not fit this model: {', '.join(problems)}", "it is not the one trained")
    changed = []
    for name, tensor in state.items():
        old = model.graph.initializers[name].const_value
        assert old is not None
        array = _as_stored(tensor, old.dtype)
        if array.tobytes() != np.ascontiguousarray(old.numpy()).tobytes():
            new = ir.Tensor(
                array,
                old.dtype,
                shape=ir.Shape(array.shape),
                name=old.name,
                doc_string=old.doc_string,
                metadata_props=dict(old.metadata_props),
            )
            model.graph.initializers[name].const_value = new
            changed.append(name)
    return changed


def _as_stored(tensor: Tensor, dtype: ir.DataType) -> np.ndarray:
    numbers = tensor.detach().cpu()
    if dtype is ir.DataType.BFLOAT16:
        return np.ascontiguousarray(numbers.to(torch.bfloat16).view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.ascontiguousarray(numbers.numpy().astype(dtype.numpy(), copy=True)).reshape(tuple(tensor.shape))
