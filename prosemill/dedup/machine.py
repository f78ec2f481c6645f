"""The kernel's machine code, kept on disk, so that signing starts without numba.

Importing numba and waking its cache takes a CPU second, a third of what 20,000 documents cost. So the first run
compiles `kernel.sign_texts` and writes what LLVM made of it beside the byte code that Python keeps of the module, or
below the cache folder where that cannot be written; later ones load it by llvmlite. The file's name has all in it that
it depends on: the source, the versions of numba and llvmlite, the processor. It is checked against its own digest,
because LLVM ends the process over a damaged one. Where any of this does not work, numba runs the kernel as usual.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from prosemill.environment import cache_folder

Function = Callable[..., object]

NAME = "prosemill_sign_texts"
DIGEST_BYTES = 32
HERE = Path(__file__).parent
SOURCES = ("kernel.py", "letters.py")
# What LLVM may call without anybody's help.
OF_THE_C_LIBRARY = frozenset({"memset", "memcpy", "memmove"})
OKAY = (0, -2)  # numba's status: done, done and None returned


def sign_texts() -> Function:
    """`kernel.sign_texts`, compiled; ImportError where numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        raise ImportError("numba is not installed")
    try:
        folders = (HERE / "__pycache__", cache_folder() / "kernel")
        return loaded(kept(folders) or keep(compiled(), folders))
    except (RuntimeError, OSError, AttributeError):  # another numba or LLVM than this was made for
        from prosemill.dedup import kernel

        function: Function = kernel.sign_texts
        return function


def _file_name() -> str:
    made_by = [metadata.version("numba"), llvmlite.__version__, llvm.get_process_triple(), llvm.get_host_cpu_name()]
    depends = [
        *made_by,
        llvm.get_host_cpu_features().flatten(),
        *((HERE / name).read_text("utf-8") for name in SOURCES),
    ]
    return f"kernel.{hashlib.sha256(chr(0).join(depends).encode()).hexdigest()[:16]}.object"


def kept(folders: Iterable[Path]) -> bytes | None:
    """The code that one of the folders has, whole."""
    name = _file_name()
    for folder in folders:
        try:
            found = (folder / name).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(found[DIGEST_BYTES:]).digest() == found[:DIGEST_BYTES]:
            return found[DIGEST_BYTES:]
    return None


def keep(code: bytes, folders: Iterable[Path]) -> bytes:
    """Write the code to the first of the folders that lets itself be written to; the code."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=folder, prefix=".kernel-")
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.chmod(aside, 0o644)
            os.replace(aside, folder / _file_name())
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


def compiled() -> bytes:
    """An object file with one function, NAME; RuntimeError where it would need more than itself."""
    from numba import njit, types

    from prosemill.dedup import kernel

    of = types.CPointer
    signature = (
        *(of(types.uint8), of(types.int64), types.int64, types.int64, of(types.uint8), of(types.int32)),
        *(of(types.uint32), of(types.uint32), types.int64),
        *(of(types.uint8), of(types.int64), of(types.uint64), of(types.int64)),
        *(of(types.uint64), of(types.uint64), of(types.int64), of(types.uint32)),
    )
    function = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(kernel.sign_texts.py_func)
    function.compile(signature)
    native = function.overloads[signature].fndesc.llvm_func_name
    target = _target()
    module = llvm.parse_assembly(function.inspect_llvm(signature).replace(native, NAME))
    _check(module)
    code: bytes = target.emit_object(module)
    return code


def _check(module: llvm.ModuleRef) -> None:
    needed = {each.name for each in (*module.functions, *module.global_variables) if each.is_declaration}
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
                ctypes.c_void_p(each.ctypes.data) if isinstance(each, np.ndarray) else ctypes.c_int64(each)
                for each in arguments
            ),
        )
        if status not in OKAY:
            raise RuntimeError(f"the kernel ended with status {status}")
        _ = engine  # lives as long as what it has loaded

    return call
