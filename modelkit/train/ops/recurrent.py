"""Recurrent layers: RNN, GRU and LSTM as ONNX defines them, step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.activation import softplus
from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported

Function = Callable[[Tensor], Tensor]
# From the input's share of the gates and the states to the new states, the first being the output.
Cell = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]

# Each with its defaults for alpha and beta; None where it takes none.
_FUNCTIONS: dict[str, tuple[Callable[[Tensor, float, float], Tensor], float, float]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "elu": (lambda x, a, b: F.elu(x, a), 1.0, 0.0),
    "hardsigmoid": (lambda x, a, b: torch.clamp(a * x + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a, b: F.leaky_relu(x, a), 0.01, 0.0),
    "relu": (lambda x, a, b: torch.relu(x), 0.0, 0.0),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), 1.0, 1.0),
    "sigmoid": (lambda x, a, b: torch.sigmoid(x), 0.0, 0.0),
    "softplus": (lambda x, a, b: softplus(x), 0.0, 0.0),
    "softsign": (lambda x, a, b: F.softsign(x), 0.0, 0.0),
    "tanh": (lambda x, a, b: torch.tanh(x), 0.0, 0.0),
    "thresholdedrelu": (lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x)), 1.0, 0.0),
}
_TAKES = {"affine": 2, "elu": 1, "hardsigmoid": 2, "leakyrelu": 1, "scaledtanh": 2, "thresholdedrelu": 1}


def _functions(op: Op, defaults: list[str], directions: int) -> list[list[Function]]:
    """The activation functions of each direction. Their alphas and betas are listed without gaps."""
    names = [str(n).lower() for n in op.value("activations", defaults * directions)]
    alphas, betas = op.numbers("activation_alpha") or [], op.numbers("activation_beta") or []
    clip = op.value("clip")
    found: list[Function] = []
    for name in names:
        if name not in _FUNCTIONS:
            raise Unsupported(f"its activation '{name}' is unknown")
        function, alpha, beta = _FUNCTIONS[name]
        takes = _TAKES.get(name, 0)
        if takes and alphas:
            alpha = alphas.pop(0)
        if takes > 1 and betas:
            beta = betas.pop(0)
        found.append(_bound(function, alpha, beta, clip))
    each = len(found) // directions
    return [found[i * each : (i + 1) * each] for i in range(directions)]


def _bound(
    function: Callable[[Tensor, float, float], Tensor], alpha: float, beta: float, clip: float | None
) -> Function:
    """A function of one argument; ``clip`` bounds what goes into it."""
    if clip is None:
        return lambda x: function(x, alpha, beta)
    return lambda x: function(x.clamp(-clip, clip), alpha, beta)


def _run(cell: Cell, gates: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None, backwards: bool) -> tuple:
    """Run a cell over time.

    Args:
        cell: One step.
        gates: What the inputs contribute to the gates, [steps, batch, gates].
        states: The first states, each [batch, hidden].
        lengths: Steps of each sample; None for all.
        backwards: Whether to begin with each sample's last step.

    Returns:
        The outputs [steps, batch, hidden], zero behind a sample's end, and the last states.
    """
    steps = range(gates.shape[0])
    outputs: list[Tensor] = []
    for t in reversed(steps) if backwards else steps:
        new = cell(gates[t], states)
        if lengths is None:
            states = new
            outputs.append(new[0])
        else:
            live = (t < lengths).unsqueeze(1)
            states = tuple(torch.where(live, n, s) for n, s in zip(new, states, strict=True))
            outputs.append(torch.where(live, new[0], torch.zeros_like(new[0])))
    if backwards:
        outputs.reverse()
    return torch.stack(outputs), states


def _rnn_cell(r: Tensor, b: Tensor, p: Tensor | None, functions: list[Function], special: bool) -> Cell:
    (f,) = functions
    bias = b[r.shape[1] :]
    return lambda x, states: (f(x + F.linear(states[0], r, bias)),)


def _gru_cell(r: Tensor, b: Tensor, p: Tensor | None, functions: list[Function], late: bool) -> Cell:
    """Gates in the order z, r, h; ``late`` resets after the product (``linear_before_reset``)."""
    f, g = functions
    hidden = r.shape[1]
    bias = b[3 * hidden :]

    def step(x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = states
        if late:
            zr, h_part = F.linear(h, r, bias).split([2 * hidden, hidden], 1)
        else:
            zr = F.linear(h, r[: 2 * hidden], bias[: 2 * hidden])
        z, reset = f(x[:, : 2 * hidden] + zr).chunk(2, 1)
        if late:
            candidate = g(x[:, 2 * hidden :] + reset * h_part)
        else:
            candidate = g(x[:, 2 * hidden :] + F.linear(reset * h, r[2 * hidden :], bias[2 * hidden :]))
        return ((1 - z) * candidate + z * h,)

    return step


def _lstm_cell(r: Tensor, b: Tensor, p: Tensor | None, functions: list[Function], coupled: bool) -> Cell:
    """Gates in the order i, o, f, c; peepholes i, o, f; ``coupled`` forgets what it does not take in."""
    f, g, h_function = functions
    hidden = r.shape[1]
    bias = b[4 * hidden :]
    peep_i, peep_o, peep_f = p.split(hidden) if p is not None else (None, None, None)

    def step(x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = states
        i, o, forget, cell = (x + F.linear(h, r, bias)).chunk(4, 1)
        i = f(i if peep_i is None else i + peep_i * c)
        forget = 1 - i if coupled else f(forget if peep_f is None else forget + peep_f * c)
        c = forget * c + i * g(cell)
        o = f(o if peep_o is None else o + peep_o * c)
        return o * h_function(c), c

    return step


# Where torch keeps the gates that ONNX lists in its own order.
_ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}


def _fused(op: Op, defaults: list[str]) -> Callable[..., tuple[Tensor, ...]] | None:
    """The same layer by a kernel of torch's own; None where the node asks for what that lacks."""
    kind = op.node.op_type
    names = [str(n).lower() for n in op.value("activations", defaults)]
    relu = kind == "RNN" and set(names) == {"relu"}
    usual = relu or names in (defaults, defaults * 2)
    if not usual or op.has("clip") or op.flag("input_forget") or op.given(4) or op.given(7):
        return None
    if kind == "GRU" and not op.flag("linear_before_reset"):
        return None
    functions: dict[str, Kernel] = {
        "RNN": torch.rnn_relu if relu else torch.rnn_tanh,
        "GRU": torch.gru,
        "LSTM": torch.lstm,
    }
    function = functions[kind]

    def run(x: Tensor, w: Tensor, r: Tensor, b: Tensor, firsts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        order = _ORDER[kind]
        weights: list[Tensor] = []
        for d in range(w.shape[0]):
            for each in (w[d], r[d], *b[d].chunk(2)):
                gates = each.chunk(len(order))
                weights.append(torch.cat([gates[i] for i in order]))
        first = firsts if kind == "LSTM" else firsts[0]
        y, *last = function(x, first, weights, True, 1, 0.0, False, w.shape[0] == 2, False)
        return y.unflatten(2, (w.shape[0], -1)).transpose(1, 2), *last

    return run


def _layer(op: Op, gates: int, defaults: list[str], make_cell: Callable[..., Cell]) -> Kernel:
    """A recurrent operator: one cell in one or both directions."""
    direction = op.text("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    functions = _functions(op, defaults, directions)
    batch_first = op.flag("layout")
    with_cell = op.node.op_type == "LSTM"
    special = op.flag("linear_before_reset") or op.flag("input_forget")
    fused = _fused(op, defaults)

    def run(
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        lengths: Tensor | None = None,
        h0: Tensor | None = None,
        c0: Tensor | None = None,
        p: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        if batch_first:
            x = x.transpose(0, 1)
            h0, c0 = (None if t is None else t.transpose(0, 1) for t in (h0, c0))
        hidden = r.shape[2]
        if b is None:
            b = x.new_zeros(directions, 2 * gates * hidden)
        zeros = x.new_zeros(directions, x.shape[1], hidden)
        firsts = tuple(zeros if t is None else t for t in ((h0, c0) if with_cell else (h0,)))
        if fused is not None:
            backwards = direction == "reverse"
            y, *finals = fused(x.flip(0) if backwards else x, w, r, b, firsts)
            y = y.flip(0) if backwards else y
        else:
            y, finals = _unfused(x, w, r, b, firsts, lengths, p)
        if batch_first:
            return y.permute(2, 0, 1, 3), *(f.transpose(0, 1) for f in finals)
        return y, *finals

    def _unfused(
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor,
        firsts: tuple[Tensor, ...],
        lengths: Tensor | None,
        p: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        outputs, lasts = [], []
        for d in range(directions):
            cell = make_cell(r[d], b[d], None if p is None else p[d], functions[d], special)
            shares = F.linear(x, w[d], b[d, : gates * r.shape[2]])  # all steps at once
            states = tuple(first[d] for first in firsts)
            y, last = _run(cell, shares, states, lengths, direction == "reverse" or d == 1)
            outputs.append(y)
            lasts.append(last)
        return torch.stack(outputs, 1), [torch.stack(states) for states in zip(*lasts, strict=True)]

    return run


def rnn(op: Op) -> Kernel:
    """``RNN``."""
    return _layer(op, 1, ["tanh"], _rnn_cell)


def gru(op: Op) -> Kernel:
    """``GRU``."""
    return _layer(op, 3, ["sigmoid", "tanh"], _gru_cell)


def lstm(op: Op) -> Kernel:
    """``LSTM``."""
    return _layer(op, 4, ["sigmoid", "tanh", "tanh"], _lstm_cell)


OPS: dict[str, Builder] = {"GRU": gru, "LSTM": lstm, "RNN": rnn}
