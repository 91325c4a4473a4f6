"""The norm kernels of an installed Liger-Kernel; `liger.toml` says how the library launches them."""

import sys
from unittest.mock import MagicMock

import triton
import triton.language as tl

# Only the launchers of the library use torch, which is large. What the kernels need is Triton's.
for name in ["", ".distributed", ".distributed.tensor", ".nn", ".nn.functional", ".nn.modules", ".nn.modules.utils"]:
    sys.modules.setdefault(f"torch{name}", MagicMock(__version__="2.11.0"))

from liger_kernel.ops.layer_norm import _layer_norm_backward_kernel, _layer_norm_forward_kernel  # noqa: F401
from liger_kernel.ops.rms_norm import _rms_norm_backward_kernel, _rms_norm_forward_kernel  # noqa: F401


@triton.jit
def sum_of_partials(partials, out, programs, d, BLOCK: tl.constexpr):
    """`partials.sum(dim=0).to(out.dtype)`, which the library asks torch for."""
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < d
    total = tl.zeros([BLOCK], tl.float32)
    for program in range(programs):
        total += tl.load(partials + program.to(tl.int64) * d + columns, mask=mask, other=0.0)
    tl.store(out + columns, total.to(out.dtype.element_ty), mask=mask)
