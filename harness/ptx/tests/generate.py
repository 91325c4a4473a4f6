"""Regenerates the PTX files beside this script, and the one among the examples, byte for byte, from kernels/cuda/*.cu,
tests/ptx/*.py and examples/cuda/*.cu.

    python3 -m venv v
    v/bin/pip install nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 triton==3.6.0
    v/bin/python harness/ptx/tests/generate.py [--check] [OUT]

No GPU, driver or compiler is needed: NVRTC and Triton come in the wheels; ISONORM_NVRTC names another folder with NVRTC's
lib/ and include/. `--check` writes nothing, leaves out what the compilers here are too new or too old for, and exits with
status 1 where a committed file differs. OUT is a folder to write to instead of tests/ptx.
"""

import ctypes
import importlib.metadata
import os
import pathlib
import re
import runpy
import sys
import sysconfig

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
CUDA = HERE.parents[2] / "kernels" / "cuda"
WHEEL = pathlib.Path(os.environ.get("ISONORM_NVRTC") or pathlib.Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13")
NVRTC, TRITON = "13.0.88", "3.6.0"

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

# Bugs, one line each, in the same source: file name -> the instantiation and (file, right line, wrong line).
SMALL = f"norm_forward<{F},{F},200,4,2,1,1,false,false>"
CLUSTER = f"norm_forward<{F},{F},200,4,1,1,2,true,false>"
BACKWARD = f"norm_backward<{F},{F},200,4,2,false>"
PLANTED = {
    "none": (SMALL, []),
    "none_cluster": (CLUSTER, []),
    "none_backward": (BACKWARD, []),
    "reads_past_ragged_row": (SMALL, [("forward.cu", "return i * THREADS + t < SHARE && column(i) < D;", "return true;")]),
    "reads_unwritten_slots": (SMALL, [("norm.cuh", "lane < WARPS ? slot[lane] : 0.f", "slot[lane]")]),
    "no_barrier_before_read": (SMALL, [("norm.cuh", "slot[warp] = v;\n        __syncthreads();", "slot[warp] = v;")]),
    "no_barrier_before_reuse": (SMALL, [("norm.cuh", "0.f);\n        __syncthreads();", "0.f);")]),
    "barrier_in_branch": (SMALL, [("norm.cuh", "if (lane == 0) slot[warp] = v;\n        __syncthreads();",
                                   "if (lane == 0) { slot[warp] = v; __syncthreads(); }")]),
    "full_mask_in_branch": (SMALL, [("norm.cuh", "v = warp_sum(lane < WARPS ? slot[lane] : 0.f);",
                                     "if (lane < 16) v = warp_sum(lane < WARPS ? slot[lane] : 0.f);")]),
    "half_mask": (SMALL, [("norm.cuh", "0xffffffffu", "0x0000ffffu")]),
    "all_lanes_store": (SMALL, [("norm.cuh", "if (lane == 0) slot[warp] = v;", "slot[warp] = v;")]),
    "writes_input": (SMALL, [("forward.cu", "store(y + start", "store(const_cast<T*>(x) + start")]),
    "all_threads_store": (SMALL, [("forward.cu", "if (t == 0 && rank == 0)", "if (rank == 0)")]),
    "misses_rows": (SMALL, [("forward.cu", "if (rstd_out)", "if (rstd_out && row % 2 == 0)")]),
    "misaligned": (SMALL, [("forward.cu", "load(x + start + column(i)", "load(x + start + column(i) + (column(i) + VEC < D)")]),
    "early_exit": (SMALL, [("forward.cu", "const int rank = CLUSTER", "if (threadIdx.x >= 50) return;\n    const int rank = CLUSTER")]),
    "reads_twice": (SMALL, [("forward.cu", "float g[VEC], b[VEC];", "float g[VEC], b[VEC];\n        load(const_cast<const T* volatile&>(x) + start + column(i), s[i]);"),
                            ("forward.cu", "const T* __restrict__ x, const T* __restrict__ residual", "const T* x, const T* __restrict__ residual")]),
    "scattered": (f"norm_forward<{F},{F},1024,4,2,1,1,false,false>",
                  [("forward.cu", "(rank * SHARE + i * THREADS + t) * VEC", "(rank * SHARE + t * ITEMS + i) * VEC")]),
    "no_cluster_barrier": (CLUSTER, [("norm.cuh", "slot[WARPS] = v;\n        cluster_barrier();", "slot[WARPS] = v;")]),
    "leaves_cluster_early": (CLUSTER, [("norm.cuh", "cluster_load(slot + WARPS, rank);\n        cluster_barrier();",
                                        "cluster_load(slot + WARPS, rank);")]),
    "wrong_rank": (CLUSTER, [("norm.cuh", "cluster_load(slot + WARPS, rank)", "cluster_load(slot + WARPS, rank + 1)")]),
    "same_partials": (BACKWARD, [("backward.cu", "static_cast<size_t>(blockIdx.x) * D + column(i) + k", "column(i) + k")]),
    "atomic_partials": (BACKWARD, [("backward.cu", "store(dgamma_parts + at, part);",
                                    "for (int j = 0; j < PIECE; ++j) atomicAdd(dgamma_parts + column(i) + k + j, part[j]);")]),
    "hang": (BACKWARD, [("backward.cu", "row += gridDim.x", "row += gridDim.x - gridDim.y")]),
    "bank_conflicts": (f"reduce_parts<{F},1000>", [("backward.cu", "sums[8][33]", "sums[32][8]"),
                                                   ("backward.cu", "sums[threadIdx.y][threadIdx.x]", "sums[threadIdx.x][threadIdx.y]"),
                                                   ("backward.cu", "sums[r][threadIdx.x]", "sums[threadIdx.x][r]")]),
}


def nvrtc():
    """The library; its builtins are loaded first, because it does not look for them beside itself."""
    for name in ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]:
        library = ctypes.CDLL(str(WHEEL / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    return library


def compile_cuda(library, path, instantiation, options, edits=()):
    """PTX of one instantiation (None: all `extern "C"` kernels of the file), with lines of the sources replaced."""

    def text(size, get):
        n = ctypes.c_size_t()
        size(program, ctypes.byref(n))
        buffer = ctypes.create_string_buffer(n.value)
        get(program, buffer)
        return buffer.value.decode()

    def read(path):
        source = path.read_text()
        for _, old, new in (edit for edit in edits if edit[0] == path.name):
            if source.count(old) != 1:
                sys.exit(f"{path.name}: `{old}` stands {source.count(old)} times")
            source = source.replace(old, new)
        return source.encode()

    program = ctypes.c_void_p()
    one = ctypes.c_char_p * 1
    headers = one(read(CUDA / "norm.cuh")), one(b"norm.cuh")
    library.nvrtcCreateProgram(ctypes.byref(program), read(path), path.name.encode(), 1, *headers)
    if instantiation:
        library.nvrtcAddNameExpression(program, instantiation.encode())
    # The last option of a kind wins.
    common = ["--std=c++17", f"--include-path={WHEEL}/include", f"--include-path={WHEEL}/include/cccl"]
    options = [o.encode() for o in common + (options if any("architecture" in o for o in options) else ["--gpu-architecture=sm_90", *options])]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if status:
        sys.exit(f"{path.name}: {instantiation}: NVRTC status {status}\n" + text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog))
    ptx = text(library.nvrtcGetPTXSize, library.nvrtcGetPTX)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    # Line information names files by their paths on this machine: only the names stay.
    return re.sub(r'(?m)^(\s*\.file\s+\d+ )".*?([^/"]+)"(, .*)?$', r'\1"\2"', ptx)


def cuda_texts():
    library = nvrtc()
    texts = {name: compile_cuda(library, CUDA / source, instantiation, options) for name, (source, instantiation, options) in KERNELS.items()}
    for name, (instantiation, edits) in PLANTED.items():
        source = "forward.cu" if "forward" in instantiation else "backward.cu"
        texts[f"planted/{name}"] = compile_cuda(library, CUDA / source, instantiation, [], edits)
    for path in sorted((HERE / "ptx").glob("*.cu")):
        texts[path.stem] = compile_cuda(library, path, None, [])
    texts["../../../examples/cuda/rms_norm_f32"] = compile_cuda(library, EXAMPLES / "cuda" / "rms_norm.cu", "rms_norm<float, float>", [])
    return texts


def triton_texts():
    texts = {}
    for path in sorted((HERE / "ptx").glob("*.py")):
        texts.update(runpy.run_path(str(path))["compile"]())
    return texts


def nvrtc_version():
    """NVRTC itself tells only two of its three numbers; the PTX that it makes tells all."""
    if not (WHEEL / "lib" / "libnvrtc.so.13").exists():
        return f"not in {WHEEL}"
    probe = compile_cuda(nvrtc(), sorted((HERE / "ptx").glob("*.cu"))[0], None, [])
    return re.search(r"V([\d.]+)", probe)[1]


def triton_version():
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return f"not in {sys.executable}"


def main():
    check = "--check" in sys.argv
    rest = [a for a in sys.argv[1:] if a != "--check"]
    out = pathlib.Path(rest[0]) if rest else HERE / "ptx"
    texts = {}
    for compiler, needed, version, make in [
        ("NVRTC", NVRTC, nvrtc_version(), cuda_texts),
        ("Triton", TRITON, triton_version(), triton_texts),
    ]:
        if version == needed:
            texts.update(make())
        elif check:
            print(f"SKIPPED: the files that {compiler} {needed} made, because {compiler} here is {version}")
        else:
            sys.exit(f"{compiler} {needed} is needed, and {compiler} here is {version}")
    different = 0
    for name, text in texts.items():
        file = out / f"{name}.ptx"
        if check and (not file.exists() or file.read_text() != text):
            print(f"{name} differs")
            different += 1
        elif not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    print(f"{len(texts)} files, {different} differ" if check else f"{len(texts)} files written to {out}")
    return different > 0


if __name__ == "__main__":
    sys.exit(main())
