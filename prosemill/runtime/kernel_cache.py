"""A kernel's machine code, kept on disk, so that what it computes starts without numba.

Importing numba and waking its cache takes a CPU second and 100 MB, a third of what dedup of 20,000 documents costs. So
the first run compiles the kernel and writes what LLVM made of it beside the byte code that Python keeps of its module,
or below the cache folder where that cannot be written; later ones load it by llvmlite. The file's name has all in it
that it depends on: the source, the versions of numba and llvmlite, the processor. It is checked against its own digest,
because LLVM ends the process over a damaged one. Where any of this does not work, numba runs the kernel as usual.

A kernel allocates nothing, and no array of it is sliced or asked for its length: so it takes bare pointers, too, and
what is compiled for these needs nothing of numba's when it runs.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from prosemill.config.environment import cache_folder
from prosemill.storage import atomic

Function = Callable[..., object]

NAME = "prosemill_kernel"
DIGEST_BYTES = 32
# What LLVM may call without other libraries.
OF_THE_C_LIBRARY = frozenset({"memset", "memcpy", "memmove"})
OKAY = (0, -2)  # numba's status: done, done and None returned


@dataclass(frozen=True)
class Kernel:
    """The function `name` of the module `module`; `*` after a type in `arguments`, numba's names, is an array of it."""

    module: str
    name: str
    arguments: str
    sources: tuple[Path, ...]  # that it is compiled from, its own module first

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its code may lie."""
        return self.sources[0].parent / "__pycache__", cache_folder() / "kernel"

    @functools.cached_property
    def file_name(self) -> str:
        made_by = [metadata.version("numba"), llvmlite.__version__, llvm.get_process_triple(), llvm.get_host_cpu_name()]
        source = [path.read_text("utf-8") for path in self.sources]
        depends = [*made_by, llvm.get_host_cpu_features().flatten(), self.arguments, *source]
        return f"{self.name}.{hashlib.sha256(chr(0).join(depends).encode()).hexdigest()[:16]}.object"


@functools.cache
def function(kernel: Kernel) -> Function:
    """The kernel, compiled; ImportError where numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        raise ImportError("numba is not installed")
    try:
        return loaded(kept(kernel, kernel.folders) or keep(compiled(kernel), kernel, kernel.folders))
    except (RuntimeError, OSError, AttributeError):  # another numba or LLVM than this was made for
        plain: Function = getattr(importlib.import_module(kernel.module), kernel.name)
        return plain


def kept(kernel: Kernel, folders: Iterable[Path]) -> bytes | None:
    """The code that one of the folders has, whole."""
    for folder in folders:
        try:
            content = (folder / kernel.file_name).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES]:
            return content[DIGEST_BYTES:]
    return None


def keep(code: bytes, kernel: Kernel, folders: Iterable[Path]) -> bytes:
    """Write the code to the first of the folders that can be written to; the code."""
    for folder in folders:
        try:
            atomic.write(folder / kernel.file_name, hashlib.sha256(code).digest() + code)
            break
        except OSError:
            continue
    return code


def _target() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=cpu, features=features, opt=3, codemodel="jitdefault", jit=True)


def compiled(kernel: Kernel) -> bytes:
    """An object file with one function, NAME; RuntimeError where it would need more than itself."""
    from numba import njit, types

    def of(argument: str) -> Any:
        plain = getattr(types, argument.removesuffix("*"))
        return types.CPointer(plain) if argument.endswith("*") else plain

    signature = tuple(map(of, kernel.arguments.split()))
    python = getattr(importlib.import_module(kernel.module), kernel.name).py_func
    function = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(python)
    function.compile(signature)
    native = function.overloads[signature].fndesc.llvm_func_name
    target = _target()
    module = llvm.parse_assembly(function.inspect_llvm(signature).replace(native, NAME))
    _check(module)
    code: bytes = target.emit_object(module)
    return code


def _check(module: llvm.ModuleRef) -> None:
    needed = {symbol.name for symbol in (*module.functions, *module.global_variables) if symbol.is_declaration}
    missing = sorted(name for name in needed - OF_THE_C_LIBRARY if not name.startswith("llvm."))
    if missing:
        raise RuntimeError(f"the kernel needs {', '.join(missing)} of numba")


def loaded(code: bytes) -> Function:
    target = _target()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    native = ctypes.CFUNCTYPE(ctypes.c_int32)(engine.get_function_address(NAME))

    def call(*arguments: Any) -> None:
        """As numba calls it: room for the result, room for an error, then the arguments; arrays lie in one piece."""
        room = (ctypes.c_int64 * 2)()
        status = native(
            ctypes.byref(room),
            ctypes.byref(room, 8),
            *(
                ctypes.c_void_p(argument.ctypes.data) if isinstance(argument, np.ndarray) else ctypes.c_int64(argument)
                for argument in arguments
            ),
        )
        if status not in OKAY:
            raise RuntimeError(f"the kernel ended with status {status}")
        _ = engine  # lives as long as what it has loaded

    return call
