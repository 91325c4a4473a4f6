"""Compiles Triton functions to PTX for a GPU that need not be there, one request a line, until its input ends.

A request is {"file", "kernel", "arch": "90", "arguments": [...], "constants": {name: literal}, "options": {"num_warps": 4}}.
Constants are Python literals; a text that begins with `tl.` is what Triton has under that name. The arguments, in the
order of the function's parameters that are no constants, are each

    {"type": "*bf16", "aligned": true}              a pointer, and whether it is a multiple of 16 bytes
    {"type": "i32", "one": false, "aligned": true}  an integer, and whether it is 1 or a multiple of 16
    {"type": "f32"}                                 another number
    null                                            no tensor: Python's None

Triton's own launcher specializes a function on the same properties, so that what is compiled is what it would launch.
The answer has the PTX, the kernel's name in it, the threads of a block, bytes of shared memory, which arguments are left as
parameters of the kernel (None and integers that are 1 became constants), and how many null pointers follow them; or
{"error": why not}. The first line that is written greets with {"triton": version, "python": path}, or {"error"}. Triton
caches what it compiled on disk, by the source of everything that a function uses.
"""

import ast
import importlib.util
import json
import os
import pathlib
import re
import signal
import sys

TYPES = {"i32": "i32", "i64": "i64", "u32": "u32", "u64": "u64", "f32": "fp32", "f64": "fp64", "bf16": "bf16", "f16": "fp16"}


class Refusal(Exception):
    """A complaint that is complete without a traceback."""


class Unknown:
    """An argument of which it is known only that it is there."""


def triton_type(name):
    return "*" + TYPES[name[1:]] if name.startswith("*") else TYPES[name]


def constant(literal):
    import triton.language as tl

    value = ast.literal_eval(literal)
    return getattr(tl, value[3:]) if isinstance(value, str) and value.startswith("tl.") else value


def load(file):
    path = pathlib.Path(file).resolve()
    name = path.stem
    # A file of a package is imported as its module, so that its relative imports work.
    top = path.parent
    while (top / "__init__.py").exists():
        name, top = f"{top.name}.{name}", top.parent
    sys.path.insert(0, str(top))
    if top != path.parent:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find(module, file, kernel):
    """The function inside its decorators, and their heuristics and configurations."""
    from triton.runtime.autotuner import Autotuner, Heuristics
    from triton.runtime.jit import JITFunction

    wrappers = (JITFunction, Autotuner, Heuristics)
    function, heuristics, configurations = getattr(module, kernel, None), {}, []
    if not isinstance(function, wrappers):
        known = sorted(name for name, value in vars(module).items() if isinstance(value, wrappers))
        known = f"it has {', '.join(known)}" if known else "it has no function with @triton.jit"
        raise Refusal(f"{file} has no Triton function {kernel}: {known}")
    while not isinstance(function, JITFunction):
        if isinstance(function, Heuristics):
            heuristics = {**function.values, **heuristics}
        elif isinstance(function, Autotuner):
            configurations = function.configs
        function = function.fn
    return function, heuristics, configurations


def fill(function, heuristics, configurations, arguments, given):
    """The signature, constants and attributes that Triton's launcher would make of these arguments."""
    kernel, parameters = function.__name__, function.params
    names = [p.name for p in parameters]
    for name in given:
        if name not in names:
            raise Refusal(f"{kernel} has no parameter {name}: it has {', '.join(names)}")
    runtime = [p for p in parameters if not p.is_constexpr and p.name not in given]
    if len(runtime) != len(arguments):
        expected = ", ".join(p.name for p in runtime)
        raise Refusal(f"{kernel} takes {len(runtime)} arguments beside its constants ({expected}), and {len(arguments)} are given")
    values = {p.name: None if a is None else Unknown() for p, a in zip(runtime, arguments)} | given
    constants = dict(given)
    for name, heuristic in heuristics.items():
        if name not in given:
            try:
                constants[name] = values[name] = heuristic(values)
            except Exception as error:
                raise Refusal(f"{kernel} computes {name} from values that only a launch has: name it in constants") from error
    for p in parameters:
        if p.is_constexpr and p.name not in constants:
            if not p.has_default:
                choices = "".join(f"; one of its configurations is {c}" for c in configurations[:1])
                raise Refusal(f"{kernel} needs the constant {p.name}: name it in constants{choices}")
            constants[p.name] = p.default

    signature, constexprs, attributes = {p.name: "constexpr" for p in parameters}, {}, {}
    for p in parameters:
        if p.name in constants:
            constexprs[(p.num,)] = constants[p.name]
    left = []
    for index, (p, argument) in enumerate(zip(runtime, arguments)):
        specialized = not p.do_not_specialize
        if argument is None:
            constexprs[(p.num,)] = None
        elif specialized and argument.get("one") and not p.annotation_type:
            constexprs[(p.num,)] = 1
        else:
            left.append(index)
            signature[p.name] = p.annotation_type or triton_type(argument["type"])
            if argument.get("aligned") and specialized and not p.do_not_specialize_on_alignment:
                attributes[(p.num,)] = [["tt.divisibility", 16]]
    return signature, constexprs, attributes, left


def answer(request, modules):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    file, kernel = request["file"], request["kernel"]
    if file not in modules:
        try:
            modules[file] = load(file)
        except Exception as error:
            raise Refusal(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    function, heuristics, configurations = find(modules[file], file, kernel)
    given = {name: constant(literal) for name, literal in request["constants"].items()}
    signature, constexprs, attributes, left = fill(function, heuristics, configurations, request["arguments"], given)
    source = ASTSource(function, signature, constexprs, attributes)
    try:
        compiled = triton.compile(source, target=GPUTarget("cuda", int(request["arch"].rstrip("af")), 32), options=request["options"])
    except Exception as error:
        raise Refusal(f"Triton does not compile {kernel}: {type(error).__name__}: {error}") from error
    ptx, metadata = compiled.asm["ptx"], compiled.metadata
    for name in ("global_scratch_size", "profile_scratch_size"):
        if getattr(metadata, name, 0):
            raise Refusal(f"{kernel} wants scratch memory from Triton's launcher, which isonorm does not give")
    entry = re.search(r"\.visible\s+\.entry\s+([\w$]+)\s*\(([^)]*)\)", ptx)
    threads = re.search(r"\.reqntid\s+(\d+)", ptx)
    return {
        "ptx": ptx,
        "name": entry[1],
        "threads": int(threads[1]) if threads else 32 * metadata.num_warps,
        "shared": metadata.shared,
        "arguments": left,
        "nulls": entry[2].count(".param") - len(left),
    }


def main():
    # An interrupt is for the program that asks; the end of its requests ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a user's module prints goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[:] = [entry for entry in sys.path if entry]
    os.environ.pop("TRITON_INTERPRET", None)

    def say(document):
        print(json.dumps(document), file=answers, flush=True)

    try:
        import triton

        if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
            raise ImportError(f"it is version {triton.__version__}, and 3.3 or newer is needed")
    except ImportError as error:
        say({"error": f"{sys.executable} (Python {sys.version.split()[0]}) cannot use Triton: {error}"})
        return
    say({"triton": triton.__version__, "python": sys.executable})
    modules = {}
    for line in sys.stdin:
        try:
            say(answer(json.loads(line), modules))
        except Refusal as error:
            say({"error": str(error)})


if __name__ == "__main__":
    main()
