"""Attention and rotary positions."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor

from modelkit.train.ops.dtypes import carrier
from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported


def _heads(x: Tensor, count: int) -> Tensor:
    """[batch, steps, heads · size] becomes [batch, heads, steps, size]."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def attention(op: Op) -> Kernel:
    """``Attention`` (opset 23): softmax(softcap(q · kᵀ · scale) + bias) · v, with a cache of earlier steps.

    A query that may attend to nothing gives 0.
    """
    q_heads, kv_heads = op.integer("q_num_heads"), op.integer("kv_num_heads")
    causal, softcap = op.flag("is_causal"), op.number("softcap", 0.0)
    left, right = op.integer("left_window_size", -1), op.integer("right_window_size", -1)
    exposed = op.integer("qk_matmul_output_mode", 0)
    wished = op.value("scale")
    precision = (
        carrier(ir.DataType(op.integer("softmax_precision")), op.widen) if op.has("softmax_precision") else None
    )

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_k: Tensor | None = None,
        past_v: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        flat = q.ndim == 3
        q, k, v = _heads(q, q_heads), _heads(k, kv_heads), _heads(v, kv_heads)
        if past_k is not None and past_v is not None:
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        present_k, present_v = k, v
        bias = _mask_bias(mask, q, k.shape[2])
        before: int | Tensor = past_k.shape[2] if past_k is not None else 0
        if past_k is None and valid is not None:
            before = (valid.reshape(-1, 1, 1, 1) - q.shape[2]).to(q.device)
        bias = _position_bias(bias, q, k.shape[2], before, causal, left, right)
        if valid is not None:
            hidden = torch.arange(k.shape[2], device=q.device) >= valid.reshape(-1, 1, 1, 1)
            bias = _hide(bias, hidden, q)
        if q.shape[1] != k.shape[1]:
            repeats = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        # The root on both sides keeps float16 in range.
        root = math.sqrt(float(wished) if wished is not None else 1 / math.sqrt(q.shape[3]))
        scores = (q * root) @ (k * root).transpose(-1, -2)
        if softcap > 0:
            scores = torch.tanh(scores / softcap) * softcap
        biased = scores if bias is None else scores + bias
        if bias is None:
            share = torch.softmax(biased if precision is None else biased.to(precision), -1)
        else:
            # Such rows are taken out before softmax too: its NaN would come back in the gradient.
            nothing = torch.isneginf(bias).all(-1, keepdim=True)
            rows = biased.masked_fill(nothing, 0)
            share = torch.softmax(rows if precision is None else rows.to(precision), -1).masked_fill(nothing, 0)
        shown = {2: biased, 3: share}.get(exposed, scores).to(q.dtype)
        y = share.to(q.dtype) @ v
        if flat:
            y = y.transpose(1, 2).flatten(2)
        return y, present_k, present_v, shown

    return run


def _mask_bias(mask: Tensor | None, q: Tensor, steps: int) -> Tensor | None:
    """The mask as numbers to add; keys that it is too short for are hidden."""
    if mask is None:
        return None
    if mask.dtype is torch.bool:
        mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, float("-inf"))
    missing = steps - mask.shape[-1]
    return torch.nn.functional.pad(mask, [0, missing], value=float("-inf")) if missing > 0 else mask


def _hide(bias: Tensor | None, hidden: Tensor, q: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=q.dtype, device=q.device)
    hiding = torch.where(hidden, float("-inf"), zero)
    return hiding if bias is None else bias + hiding


def _position_bias(
    bias: Tensor | None, q: Tensor, steps: int, before: int | Tensor, causal: bool, left: int, right: int
) -> Tensor | None:
    """Hide what lies in the future, or outside a window around each query."""
    if not causal and left < 0 and right < 0:
        return bias
    query = torch.arange(q.shape[2], device=q.device).reshape(-1, 1) + before
    distance = query - torch.arange(steps, device=q.device)
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if causal:
        hidden = hidden | (distance < 0)
    if left >= 0:
        hidden = hidden | (distance > left)
    if right >= 0:
        hidden = hidden | (-distance > right)
    return _hide(bias, hidden, q)


def rotary_embedding(op: Op) -> Kernel:
    """``RotaryEmbedding`` (opset 23): pairs of numbers turned by an angle that grows with the position."""
    interleaved, partial, heads = op.flag("interleaved"), op.integer("rotary_embedding_dim"), op.integer("num_heads")

    def run(x: Tensor, cos: Tensor, sin: Tensor, position: Tensor | None = None) -> Tensor:
        y = x.transpose(1, 2) if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1)
        if position is not None:
            cos, sin = cos[position.to(torch.int64)], sin[position.to(torch.int64)]
        cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
        size = partial or y.shape[3]
        turned, rest = y[..., :size], y[..., size:]
        a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
        real, imaginary = cos * a - sin * b, sin * a + cos * b
        turned = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
        y = torch.cat([turned, rest], -1)
        return y.transpose(1, 2) if x.ndim == 4 else y.reshape(x.shape)

    return run


def linear_attention(op: Op) -> Kernel:
    """``LinearAttention``: a state of key · valueᵀ that each step updates, decays and corrects."""
    q_heads, kv_heads = op.integer("q_num_heads"), op.integer("kv_num_heads")
    rule, wished = op.text("update_rule", "gated_delta"), op.number("scale", 0.0)
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        raise Unsupported(f"its update_rule '{rule}' is unknown")

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        past: Tensor | None = None,
        decay: Tensor | None = None,
        beta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float32 if q.dtype.itemsize < 4 else q.dtype
        queries, keys, values = (_heads(t.to(wide), n) for t, n in ((q, q_heads), (k, kv_heads), (v, kv_heads)))
        size = keys.shape[3]
        scale = wished or 1 / math.sqrt(size)
        state = keys.new_zeros(*keys.shape[:2], size, values.shape[3]) if past is None else past.to(wide)
        decays = None if decay is None else _heads(decay.to(wide), kv_heads).exp()
        betas = None if beta is None else beta.to(wide).transpose(1, 2).unsqueeze(-1)
        outputs = []
        for t in range(q.shape[1]):
            key, value = keys[:, :, t], values[:, :, t]
            if decays is not None:
                state = state * decays[:, :, t].unsqueeze(-1)
            if betas is not None:
                value = betas[:, :, t] * (value - torch.einsum("bhdm,bhd->bhm", state, key))
            state = state + key.unsqueeze(-1) * value.unsqueeze(-2)
            read = state.repeat_interleave(q_heads // kv_heads, 1)
            outputs.append(scale * torch.einsum("bhd,bhdm->bhm", queries[:, :, t], read))
        y = torch.stack(outputs, 1).flatten(2)
        return y.to(q.dtype), state.to(q.dtype if past is None else past.dtype)

    return run


OPS: dict[str, Builder] = {
    "Attention": attention,
    "LinearAttention": linear_attention,
    "RotaryEmbedding": rotary_embedding,
}
