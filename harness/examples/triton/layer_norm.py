"""LayerNorm in Triton, forward and backward: one program per row; the gradients of weight and bias in two stages, so that
they are the same in every run. `layer_norm.toml` tells isonorm how the functions are launched."""

import triton
import triton.language as tl


@triton.jit
def layer_norm_forward(x, weight, bias, y, d, eps, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * d
    columns = tl.arange(0, BLOCK)
    mask = columns < d
    v = tl.load(x + start + columns, mask=mask, other=0.0).to(tl.float32)
    centered = tl.where(mask, v - tl.sum(v, axis=0) / d, 0.0)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(centered * centered, axis=0) / d + eps)
    out = centered * rstd
    if weight is not None:
        out *= tl.load(weight + columns, mask=mask).to(tl.float32)
    if bias is not None:
        out += tl.load(bias + columns, mask=mask).to(tl.float32)
    tl.store(y + start + columns, out.to(y.dtype.element_ty), mask=mask)


@triton.jit
def layer_norm_backward(dy, x, weight, dx, weight_partials, bias_partials, r, d, eps, BLOCK: tl.constexpr):
    """Each program takes every so many rows, and keeps its shares of dweight and dbias in registers until the end."""
    columns = tl.arange(0, BLOCK)
    mask = columns < d
    w = tl.full([BLOCK], 1.0, tl.float32)
    if weight is not None:
        w = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    weight_share = tl.zeros([BLOCK], tl.float32)
    bias_share = tl.zeros([BLOCK], tl.float32)
    for row in range(tl.program_id(0), r, tl.num_programs(0)):
        start = row.to(tl.int64) * d
        v = tl.load(x + start + columns, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(dy + start + columns, mask=mask, other=0.0).to(tl.float32)
        centered = tl.where(mask, v - tl.sum(v, axis=0) / d, 0.0)
        rstd = 1.0 / tl.sqrt_rn(tl.sum(centered * centered, axis=0) / d + eps)
        xhat = centered * rstd
        t = g * w
        out = rstd * (t - tl.sum(t, axis=0) / d - xhat * (tl.sum(t * xhat, axis=0) / d))
        tl.store(dx + start + columns, out.to(dx.dtype.element_ty), mask=mask)
        weight_share += g * xhat
        bias_share += g
    at = tl.program_id(0).to(tl.int64) * d + columns
    tl.store(weight_partials + at, weight_share, mask=mask)
    tl.store(bias_partials + at, bias_share, mask=mask)


@triton.jit
def sum_partials(partials, out, programs, d, BLOCK: tl.constexpr):
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < d
    total = tl.zeros([BLOCK], tl.float32)
    for program in range(programs):
        total += tl.load(partials + program.to(tl.int64) * d + columns, mask=mask, other=0.0)
    tl.store(out + columns, total.to(out.dtype.element_ty), mask=mask)
