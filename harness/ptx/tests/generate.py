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

# File name -> the instantiation of kernels/cuda/rows.cu, which says what parameters mean, and options beside the common ones.
B, H, F = "__nv_bfloat16", "__half", "float"
LAYER, RMS, ADD_LAYER, ADD_RMS = (f"Norm::{n}, Residual::{r}" for r in ["none", "rounded"] for n in ["layer", "rms"])
KERNELS = {
    "layer_norm_f32_warp": (f"rows_forward<{F}, {F}, {LAYER}, 4, 8, 32, 1>", []),
    "layer_norm_f16_narrow": (f"rows_forward<{H}, {F}, {ADD_LAYER}, 1, 8, 32, 1>", []),
    "layer_norm_bf16_block": (f"rows_forward<{B}, {B}, {LAYER}, 8, 4, 128, 1>", []),
    "layer_norm_bf16_lines": (f"rows_forward<{B}, {B}, {LAYER}, 8, 1, 8, 1>", ["--generate-line-info"]),
    "rms_norm_bf16_residual": (f"rows_forward<{B}, {F}, {ADD_RMS}, 8, 4, 32, 1>", []),
    "rms_norm_f16_sm80": (f"rows_forward<{H}, {H}, {RMS}, 8, 4, 128, 1>", ["--gpu-architecture=sm_80"]),
    "rms_norm_f32_cluster": (f"rows_forward<{F}, {F}, {RMS}, 4, 8, 512, 2>", []),
    "layer_norm_backward_bf16": (f"rows_backward<{B}, {F}, {LAYER}, 8, 2, 128, 1>", []),
    "rms_norm_backward_f32": (f"rows_backward<{F}, {F}, {RMS}, 4, 4, 32, 1>", []),
    "reduce_parts_f32": (f"reduce_parts<{F}>", []),
}

# Bugs, one line each, in the same source: file name -> the instantiation and (file, right line, wrong line).
SMALL = f"rows_forward<{F}, {F}, {LAYER}, 4, 1, 64, 1>"
CLUSTER = f"rows_forward<{F}, {F}, {RMS}, 4, 1, 64, 2>"
BACKWARD = f"rows_backward<{F}, {F}, {LAYER}, 4, 1, 64, 1>"
SLOT = "if (lane == 0) slot.warps[k][warp] = v[k];"
PLANTED = {
    "none": (SMALL, []),
    "none_cluster": (CLUSTER, []),
    "none_backward": (BACKWARD, []),
    "reads_past_ragged_row": (SMALL, [("rows.cuh", "if (column(i) < stop) body", "if (is_row) body")]),
    "reads_unwritten_slots": (SMALL, [("norm.cuh", "lane < WARPS ? slot.warps[k][lane] : 0.f", "slot.warps[k][lane]")]),
    "no_barrier_before_read": (SMALL, [("norm.cuh", f"{SLOT}\n            __syncthreads();", SLOT)]),
    "no_barrier_before_reuse": (SMALL, [("norm.cuh", "turn ^= 1;", "turn = 0;")]),
    "barrier_in_branch": (SMALL, [("norm.cuh", f"{SLOT}\n            __syncthreads();",
                                   "if (lane == 0) { slot.warps[k][warp] = v[k]; __syncthreads(); }")]),
    "full_mask_in_branch": (SMALL, [("norm.cuh", "v[k] = warp_sum(lane < WARPS", "if (lane < 16) v[k] = warp_sum(lane < WARPS")]),
    "half_mask": (SMALL, [("norm.cuh", "0xffffffffu", "0x0000ffffu")]),
    "all_lanes_store": (SMALL, [("norm.cuh", SLOT, "slot.warps[k][warp] = v[k];")]),
    "writes_input": (SMALL, [("rows.cu", "store(y + start", "store(const_cast<T*>(x) + start")]),
    "lanes_for_threads": (SMALL, [("rows.cuh", "(start + threadIdx.x % THREADS) * VEC", "(start + threadIdx.x % 32) * VEC")]),
    "misses_rows": (SMALL, [("rows.cu", "store(y + start", "if (row % 2 == 0) store(y + start")]),
    "misaligned": (SMALL, [("rows.cuh", "load(x + at, s);", "load(x + at + (threadIdx.x == 0), s);")]),
    "early_exit": (SMALL, [("rows.cu", "const Own own(d);\n    const long long row", "if (threadIdx.x >= 50) return;\n    const Own own(d);\n    const long long row")]),
    "reads_twice": (SMALL, [("rows.cu", "float w[VEC], b[VEC];", "float w[VEC], b[VEC];\n        load(const_cast<const T* volatile&>(x) + start + c, kept[i]);")]),
    "scattered": (f"rows_forward<{F}, {F}, {LAYER}, 4, 4, 64, 1>",
                  [("rows.cuh", "return first + i * THREADS * VEC;", "return (threadIdx.x % THREADS * ITEMS + i) * VEC;")]),
    "no_cluster_barrier": (CLUSTER, [("norm.cuh", "slot.block[k] = v[k];\n            cluster_barrier();", "slot.block[k] = v[k];")]),
    "leaves_cluster_early": (CLUSTER, [("norm.cuh", "if constexpr (CLUSTER > 1) cluster_barrier();", "")]),
    "wrong_rank": (CLUSTER, [("norm.cuh", "cluster_load(&slot.block[k], lane)", "cluster_load(&slot.block[k], lane + 1)")]),
    "same_partials": (BACKWARD, [("rows.cu", "(static_cast<size_t>(blockIdx.x / CLUSTER) * SLOTS + slot) * d", "slot * d")]),
    "atomic_partials": (BACKWARD, [("rows.cu", "store(to + part + c, sums[i]);",
                                    "for (int j = 0; j < VEC; ++j) atomicAdd(to + c + j, sums[i][j]);")]),
    "hang": (BACKWARD, [("rows.cu", "group += step", "group += step - gridDim.y")]),
    "all_threads_store": (f"reduce_parts<{F}>", [("rows.cu", "if (threadIdx.y != 0 || c >= d) return;", "if (c >= d) return;")]),
    "bank_conflicts": (f"reduce_parts<{F}>", [("rows.cu", "sums[16][33]", "sums[32][16]"),
                                              ("rows.cu", "sums[threadIdx.y][threadIdx.x]", "sums[threadIdx.x][threadIdx.y]"),
                                              ("rows.cu", "sums[r][threadIdx.x]", "sums[threadIdx.x][r]")]),
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
    headers = sorted(CUDA.glob("*.cuh"))
    list_of = ctypes.c_char_p * len(headers)
    included = list_of(*map(read, headers)), list_of(*(h.name.encode() for h in headers))
    library.nvrtcCreateProgram(ctypes.byref(program), read(path), path.name.encode(), len(headers), *included)
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
    texts = {name: compile_cuda(library, CUDA / "rows.cu", instantiation, options) for name, (instantiation, options) in KERNELS.items()}
    for name, (instantiation, edits) in PLANTED.items():
        texts[f"planted/{name}"] = compile_cuda(library, CUDA / "rows.cu", instantiation, [], edits)
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
