"""Second-order choice of channels: which one costs least once the layers that read it are fitted again.

A layer computes Y = W X. Without the columns S of X, and with the other weights at their new optimum, the squared
error grows by tr(W_S [(H⁻¹)_SS]⁻¹ W_Sᵀ), H being the Gram matrix of X; the weights become
W - W_S [(H⁻¹)_SS]⁻¹ (H⁻¹)_S: (Hassibi and Stork 1993, "Second order derivatives for network pruning: Optimal Brain
Surgeon", eq. 5, for blocks of columns and several outputs). Channels go one at a time, the cheapest first, so what
one channel can do for another is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelkit.linear.grams import LayerGram

# Of the channels that are left, this share goes at once: for a group of 64 or fewer one at a time.
AT_ONCE = 1 / 64


@dataclass
class Consumer:
    """One layer that reads the channels of a group.

    Attributes:
        name: Name of its weight.
        matrices: ``[groups, outputs, columns]``, float64; changed as channels go.
        inverse: Inverse of the Gram matrix, ``[groups, columns, columns]``; changed as channels go.
        columns: For each atom its columns.
        scale: What the error is divided by: the energy of the layer's output.
    """

    name: str
    matrices: np.ndarray
    inverse: np.ndarray
    columns: list[np.ndarray]
    scale: float

    def losses(self, atoms: np.ndarray) -> np.ndarray:
        """What each of some atoms would cost if it went next."""
        total = np.zeros(len(atoms))
        sizes = np.array([len(self.columns[atom]) for atom in atoms])
        for size in np.unique(sizes[sizes > 0]):
            same = np.flatnonzero(sizes == size)
            columns = np.stack([self.columns[atom] for atom in atoms[same]])
            for matrix, inverse in zip(self.matrices, self.inverse, strict=True):
                blocks = inverse[columns[:, :, None], columns[:, None, :]]
                weights = matrix[:, columns].transpose(1, 2, 0)
                total[same] += np.einsum("ako,ako->a", weights, np.linalg.solve(blocks, weights))
        return total / self.scale

    def remove(self, atoms: np.ndarray) -> None:
        """Take atoms out: their columns become zero, the others make up for them."""
        gone = np.concatenate([self.columns[atom] for atom in atoms])
        for matrix, inverse in zip(self.matrices, self.inverse, strict=True):
            rows = inverse[gone]
            pull = np.linalg.solve(rows[:, gone], rows)
            matrix -= matrix[:, gone] @ pull
            inverse -= rows.T @ pull
            matrix[:, gone] = 0
            # What is left of rounding would come back as a huge loss.
            inverse[gone] = 0
            inverse[:, gone] = 0
            inverse[gone, gone] = 1


def consumer_of(
    name: str, matrices: np.ndarray, gram: LayerGram, columns: list[np.ndarray], *, centred: bool, ridge: float
) -> Consumer:
    """Prepare a layer for eliminations.

    Args:
        name: Name of its weight.
        matrices: ``[groups, outputs, columns]``, float64.
        gram: Sums over its inputs, with ``xtx``.
        columns: For each atom its columns.
        centred: Whether the layer has a bias to make up for means.
        ridge: Added to the diagonal, as a share of its mean.
    """
    assert gram.xtx is not None
    moments = gram.xtx / max(gram.count, 1)
    if centred:
        moments = moments - gram.mean[:, :, None] * gram.mean[:, None, :]
    size = moments.shape[-1]
    diagonal = np.trace(moments, axis1=1, axis2=2) / size
    # Dead inputs must not make the matrix singular.
    damped = moments + np.maximum(ridge * diagonal, 1e-10)[:, None, None] * np.eye(size)
    energy = float(np.einsum("goi,gij,goj->", matrices, moments, matrices, optimize=True))
    return Consumer(name, matrices.copy(), np.linalg.inv(damped), columns, max(energy, 1e-30))


def greedy_order(consumers: list[Consumer], atoms: int, removable: int) -> tuple[np.ndarray, np.ndarray]:
    """Find an order in which atoms go, the cheapest next; the consumers are used up.

    Args:
        consumers: Layers that read the group.
        atoms: Number of atoms.
        removable: How many of them must be put in order; the others follow by what they would cost next.

    Returns:
        All atoms, the first to go first; and for each the error (a share of the outputs' energy, summed over the
        consumers) that it added.
    """
    left = np.arange(atoms)
    order: list[int] = []
    added: list[float] = []
    while len(order) < removable and len(left) > 1:
        costs = sum((consumer.losses(left) for consumer in consumers), np.zeros(len(left)))
        count = min(max(1, int(len(left) * AT_ONCE)), removable - len(order))
        cheapest = np.argsort(costs, kind="stable")[:count]
        gone = left[cheapest]
        for consumer in consumers:
            consumer.remove(gone)
        order += gone.tolist()
        added += costs[cheapest].tolist()
        left = np.delete(left, cheapest)
    costs = sum((consumer.losses(left) for consumer in consumers), np.zeros(len(left)))
    last = np.argsort(costs, kind="stable")
    return np.array([*order, *left[last]]), np.array([*added, *costs[last]])
