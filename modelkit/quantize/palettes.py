"""Which ways of sharing values are tried: with the weights alone, by what flows through them, and trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import UsageError
from modelkit.graph.opset import ensure_opset
from modelkit.progress import Progress
from modelkit.quantize.codebook import halve_biases, needs_four_bits, share_values
from modelkit.quantize.config import QuantizeConfig
from modelkit.train.config import FineTune
from modelkit.train.history import note, summary
from modelkit.train.palettes import train_palettes
from modelkit.train.teacher import original_teacher


def palette_candidates(config: QuantizeConfig, model: ir.Model, data: Dataset | None) -> list[Candidate]:
    """Return what to try.

    Args:
        config: The resolved options, with a codebook.
        model: The normalised model.
        data: Inputs; None where there are none.

    Raises:
        UsageError: Training needs data and there is none.
    """
    if config.qat.enabled and data is None:
        raise UsageError("training shared values needs data", "give the training samples with --data")
    found = [Candidate("codebook", _way(config, None))]
    if data is not None and config.codebook.importance == "auto":
        found.append(Candidate("codebook, by inputs", _way(config, data)))
    if config.qat.enabled and data is not None:
        found.append(Candidate("codebook, trained", _trained(config, model, data), _way(config, None)))
    return found


def _way(config: QuantizeConfig, data: Dataset | None) -> Callable[[ir.Model, Progress], list[Decision]]:
    def apply(model: ir.Model, progress: Progress) -> list[Decision]:
        return _with_biases(model, config, _share(model, config, data, progress))

    return apply


def _trained(
    config: QuantizeConfig, original: ir.Model, data: Dataset
) -> Callable[[ir.Model, Progress], list[Decision]]:
    def apply(model: ir.Model, progress: Progress) -> list[Decision]:
        decisions = share_and_train(model, config, data, config.qat, original, progress)
        # Where the file is not packed, what is shared takes its own form now.
        return decisions if config.packing != "off" else [*decisions, *_share(model, config, None, progress)]

    return apply


def share_and_train(
    model: ir.Model,
    config: QuantizeConfig,
    data: Dataset | None,
    options: FineTune,
    followed: ir.Model,
    progress: Progress,
) -> list[Decision]:
    """Let weights share values and train both, in place; they stay the floats that they are, to be packed.

    Args:
        model: A normalised model.
        config: Says how many values, and of which weights.
        data: What to train on; its inputs also tell how much weights count. None where nothing is trained.
        options: How to train; no epochs are no training.
        followed: Whom to follow beside the labels.
        progress: Told how far it is.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: The graph cannot be trained.
    """
    floats = _floats(model)
    inputs = data if config.codebook.importance == "auto" else None
    decisions = _share(model, config.model_copy(update={"pack": "auto"}), inputs, progress)
    if data is None or not options.epochs:
        return _with_biases(model, config, decisions)
    clustered = {decision.target for decision in decisions if decision.action == "clustered"}
    trained, history = train_palettes(
        model,
        data,
        options,
        floats={name: array for name, array in floats.items() if name in clustered},
        teacher=original_teacher(followed, options, data),
        progress=progress,
        seed=config.seed,
    )
    note(model, history)
    return _with_biases(model, config, [*decisions, summary(history, "trained"), *trained])


def _share(model: ir.Model, config: QuantizeConfig, data: Dataset | None, progress: Progress) -> list[Decision]:
    packed = config.packing != "off"
    raised = ensure_opset(model, 21) if needs_four_bits(config.codebook, packed=packed) else None
    return [
        *([] if raised is None else [raised]),
        *share_values(
            model,
            config.codebook,
            include=config.include,
            exclude=config.exclude,
            packed=packed,
            data=data,
            progress=progress,
        ),
    ]


def _with_biases(model: ir.Model, config: QuantizeConfig, decisions: list[Decision]) -> list[Decision]:
    """The last thing that is done to a model: biases are stored in 16 bits where that is asked for."""
    if config.codebook.biases == "float32":
        return decisions
    halved = halve_biases(model, config.include, config.exclude)
    known = {decision.target for decision in halved}
    return [*(each for each in decisions if each.target not in known or each.action == "trained"), *halved]


def _floats(model: ir.Model) -> dict[str, np.ndarray]:
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {
        name: tensor.numpy()
        for name, tensor in tensors.items()
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT
    }
