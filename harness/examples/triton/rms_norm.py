"""RMSNorm in Triton, forward and backward: one program per row; the gradient of the weight in two stages, so that it is
the same in every run. `rms_norm.toml` tells isonorm how the functions are launched."""

import triton
import triton.language as tl


@triton.jit
def rms_norm_forward(x, weight, y, d, eps, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * d
    columns = tl.arange(0, BLOCK)
    mask = columns < d
    v = tl.load(x + start + columns, mask=mask, other=0.0).to(tl.float32)
    rrms = 1.0 / tl.sqrt_rn(tl.sum(v * v, axis=0) / d + eps)
    out = v * rrms
    if weight is not None:
        out *= tl.load(weight + columns, mask=mask).to(tl.float32)
    tl.store(y + start + columns, out.to(y.dtype.element_ty), mask=mask)


@triton.jit
def rms_norm_backward(dy, x, weight, dx, partials, r, d, eps, BLOCK: tl.constexpr):
    """Each program takes every so many rows, and keeps its share of dweight in registers until the end."""
    columns = tl.arange(0, BLOCK)
    mask = columns < d
    w = tl.full([BLOCK], 1.0, tl.float32)
    if weight is not None:
        w = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    share = tl.zeros([BLOCK], tl.float32)
    for row in range(tl.program_id(0), r, tl.num_programs(0)):
        start = row.to(tl.int64) * d
        v = tl.load(x + start + columns, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(dy + start + columns, mask=mask, other=0.0).to(tl.float32)
        rrms = 1.0 / tl.sqrt_rn(tl.sum(v * v, axis=0) / d + eps)
        xhat = v * rrms
        t = g * w
        out = rrms * (t - xhat * (tl.sum(t * xhat, axis=0) / d))
        tl.store(dx + start + columns, out.to(dx.dtype.element_ty), mask=mask)
        share += g * xhat
    tl.store(partials + tl.program_id(0).to(tl.int64) * d + columns, share, mask=mask)


@triton.jit
def sum_partials(partials, out, programs, d, BLOCK: tl.constexpr):
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < d
    total = tl.zeros([BLOCK], tl.float32)
    for program in range(programs):
        total += tl.load(partials + program.to(tl.int64) * d + columns, mask=mask, other=0.0)
    tl.store(out + columns, total.to(out.dtype.element_ty), mask=mask)
