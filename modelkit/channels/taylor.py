"""Taylor importance: how much the loss would change, to first order, if a channel's weights were zero.

Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", arXiv:1906.10771, eq. 8: the sum of weight
times gradient over all that a channel takes up, its magnitude averaged over batches.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.channels.importance import atom_members
from modelkit.data.dataset import Dataset
from modelkit.errors import ModelError
from modelkit.graph.channels import Group
from modelkit.train.gradients import weight_gradients


class Taylor:
    """Scores of a model's channels from gradients, which are taken once.

    Args:
        model: The model that the groups belong to.
        groups: What may be asked for.
        data: Inputs with labels.
        limit: At most this many samples.

    Raises:
        DataError: The labels do not fit the outputs.
        ModelError: The model has an operator that cannot be trained.
    """

    def __init__(self, model: ir.Model, groups: list[Group], data: Dataset, limit: int) -> None:
        self._scores = {group.name: np.zeros(len(np.unique(group.atoms))) for group in groups}
        for gradients in weight_gradients(model, data, limit):
            for group in groups:
                change = _change(group, gradients)
                self._scores[group.name] += [abs(change[atom].sum()) for atom in atom_members(group)]

    def __call__(self, group: Group) -> np.ndarray:
        """Importance of each atom of a group.

        Raises:
            ModelError: The loss does not depend on the group.
        """
        scores = self._scores[group.name]
        if not scores.any():
            raise ModelError(f"the loss does not depend on the channels of '{group.name}'")
        return scores


def _change(group: Group, gradients: dict[str, np.ndarray]) -> np.ndarray:
    """Sum of weight times gradient of each channel, over the parts that make it."""
    total = np.zeros(group.channels)
    for part in group.parts:
        gradient = gradients.get(str(part.value.name))
        # What reads a channel says the same as what makes it: setting either to zero removes it.
        if gradient is not None and part.kind != "consumes":
            total += (part.numbers().astype(np.float64) * part.numbers(gradient)).sum(axis=1)
    return total
