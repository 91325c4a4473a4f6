"""Row normalizations in Triton, compiled for a GPU that need not be there. `compile()` returns PTX texts by name."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def rms_norm(x, gamma, y, rstd_out, stride, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < n
    v = tl.load(x + row * stride + columns, mask=mask, other=0.0).to(tl.float32)
    rstd = 1.0 / tl.sqrt(tl.sum(v * v, axis=0) / n + eps)
    g = tl.load(gamma + columns, mask=mask).to(tl.float32)
    tl.store(rstd_out + row, rstd)
    tl.store(y + row * stride + columns, (v * rstd * g).to(y.dtype.element_ty), mask=mask)


@triton.jit
def layer_norm(x, gamma, beta, y, stride, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < n
    v = tl.load(x + row * stride + columns, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(v, axis=0) / n
    d = tl.where(mask, v - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(d * d, axis=0) / n + eps)
    g = tl.load(gamma + columns, mask=mask).to(tl.float32)
    b = tl.load(beta + columns, mask=mask).to(tl.float32)
    tl.store(y + row * stride + columns, (d * rstd * g + b).to(y.dtype.element_ty), mask=mask)


def compile():
    texts = {}
    for name, kernel, pointers, block, warps in [
        ("triton_rms_norm_bf16", rms_norm, {"x": "*bf16", "gamma": "*fp32", "y": "*bf16", "rstd_out": "*fp32"}, 1024, 4),
        ("triton_layer_norm_f32", layer_norm, {"x": "*fp32", "gamma": "*fp32", "beta": "*fp32", "y": "*fp32"}, 256, 1),
        ("triton_layer_norm_f16", layer_norm, {"x": "*fp16", "gamma": "*fp16", "beta": "*fp16", "y": "*fp16"}, 4096, 8),
    ]:
        signature = {**pointers, "stride": "i32", "n": "i32", "eps": "fp32", "BLOCK": "constexpr"}
        # Buffers start at multiples of 16 bytes; stride and, but for f16, n are multiples of 16: then accesses are wide.
        divisible = range(len(pointers) + (1 if "f16" in name.split("_") else 2))
        attributes = {(i,): [["tt.divisibility", 16]] for i in divisible}
        source = ASTSource(kernel, signature, constexprs={"BLOCK": block}, attrs=attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
        text = compiled.asm["ptx"]
        # Debug sections and line information hold this machine's paths.
        kept = [line for line in text[: text.find("\t.section\t.debug")].splitlines() if ".file" not in line and ".loc" not in line]
        header = f"// Triton {triton.__version__}: {compiled.metadata.shared} bytes of shared memory, {warps} warps\n"
        texts[name] = header + "\n".join(kept).rstrip() + "\n"
    return texts
