"""The norm kernels of an installed Liger-Kernel; `liger.toml` says how the library launches them."""

import sys
from unittest.mock import MagicMock

# Only the launchers of the library use torch, which is large. What the kernels need is Triton's.
for name in ["", ".distributed", ".distributed.tensor", ".nn", ".nn.functional", ".nn.modules", ".nn.modules.utils"]:
    sys.modules.setdefault(f"torch{name}", MagicMock(__version__="2.11.0"))

from liger_kernel.ops.layer_norm import _layer_norm_backward_kernel, _layer_norm_forward_kernel  # noqa: F401
from liger_kernel.ops.rms_norm import _rms_norm_backward_kernel, _rms_norm_forward_kernel  # noqa: F401

# What the library asks torch for: `partials.sum(dim=0).to(out.dtype)`.
from layer_norm import sum_partials  # noqa: E402, F401
