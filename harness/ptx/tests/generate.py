"""Regenerates the PTX files beside this script, byte for byte, from kernels/cuda/*.cu and tests/ptx/*.py.

    python3 -m venv v
    v/bin/pip install nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 triton==3.6.0
    v/bin/python harness/ptx/tests/generate.py [--check] [OUT]

No GPU, driver or compiler is needed: NVRTC and Triton come in the wheels. `--check` writes nothing and exits with
status 1 where a committed file differs. OUT is a folder to write to instead of tests/ptx.
"""

import ctypes
import pathlib
import re
import runpy
import sys
import sysconfig

HERE = pathlib.Path(__file__).resolve().parent
CUDA = HERE.parents[2] / "kernels" / "cuda"
WHEEL = pathlib.Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13"

# File name -> source, the instantiation, and options beside the common ones. Kernels' parameters: kernels/cuda/*.cu.
B, H, F = "__nv_bfloat16", "__half", "float"
KERNELS = {
    "layer_norm_f32_1000_warp": ("forward.cu", f"norm_forward<{F},{F},1000,4,1,4,1,false,false>", []),
    "layer_norm_f16_1001_narrow": ("forward.cu", f"norm_forward<{H},{F},1001,1,2,1,1,false,true>", []),
    "layer_norm_bf16_4096_block": ("forward.cu", f"norm_forward<{B},{B},4096,8,4,1,1,false,false>", []),
    "layer_norm_bf16_4096_lines": ("forward.cu", f"norm_forward<{B},{B},4096,8,4,1,1,false,false>", ["--generate-line-info"]),
    "rms_norm_bf16_1000_residual": ("forward.cu", f"norm_forward<{B},{F},1000,8,2,1,1,true,true>", []),
    "rms_norm_f16_4096_sm80": ("forward.cu", f"norm_forward<{H},{H},4096,8,4,1,1,true,false>", ["--gpu-architecture=sm_80"]),
    "rms_norm_f32_8200_cluster": ("forward.cu", f"norm_forward<{F},{F},8200,4,4,1,4,true,false>", []),
    "layer_norm_backward_bf16_1000": ("backward.cu", f"norm_backward<{B},{F},1000,8,4,false>", []),
    "rms_norm_backward_f32_300": ("backward.cu", f"norm_backward<{F},{F},300,4,1,true>", []),
    "reduce_parts_f32_1000": ("backward.cu", f"reduce_parts<{F},1000>", []),
}


def nvrtc():
    """The library; its builtins are loaded first, because it does not look for them beside itself."""
    for name in ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]:
        library = ctypes.CDLL(str(WHEEL / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    return library


def compile_cuda(library, path, instantiation, options):
    """PTX of one instantiation (None: all `extern "C"` kernels of the file)."""

    def text(size, get):
        n = ctypes.c_size_t()
        size(program, ctypes.byref(n))
        buffer = ctypes.create_string_buffer(n.value)
        get(program, buffer)
        return buffer.value.decode()

    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
    if instantiation:
        library.nvrtcAddNameExpression(program, instantiation.encode())
    # The last option of a kind wins.
    common = ["--std=c++17", f"--include-path={CUDA}", f"--include-path={WHEEL}/include", f"--include-path={WHEEL}/include/cccl"]
    options = [o.encode() for o in common + (options if any("architecture" in o for o in options) else ["--gpu-architecture=sm_90", *options])]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if status:
        sys.exit(f"{path.name}: {instantiation}: NVRTC status {status}\n" + text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog))
    ptx = text(library.nvrtcGetPTXSize, library.nvrtcGetPTX)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    # Line information names files by their paths on this machine: only the names stay.
    return re.sub(r'(?m)^(\s*\.file\s+\d+ )".*?([^/"]+)"(, .*)?$', r'\1"\2"', ptx)


def main():
    check = "--check" in sys.argv
    rest = [a for a in sys.argv[1:] if a != "--check"]
    out = pathlib.Path(rest[0]) if rest else HERE / "ptx"
    library = nvrtc()
    texts = {name: compile_cuda(library, CUDA / source, instantiation, options) for name, (source, instantiation, options) in KERNELS.items()}
    for path in sorted((HERE / "ptx").glob("*.cu")):
        texts[path.stem] = compile_cuda(library, path, None, [])
    for path in sorted((HERE / "ptx").glob("*.py")):
        texts.update(runpy.run_path(str(path))["compile"]())
    different = 0
    for name, text in texts.items():
        file = out / f"{name}.ptx"
        if check and (not file.exists() or file.read_text() != text):
            print(f"{file.name} differs")
            different += 1
        elif not check:
            out.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    print(f"{len(texts)} files, {different} differ" if check else f"{len(texts)} files written to {out}")
    return different > 0


if __name__ == "__main__":
    sys.exit(main())
