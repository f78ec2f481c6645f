"""Kernels whose machine code is kept: compiled once, checked, loaded where numba cannot be imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from prosemill.chunk.words import FIND_WORDS, IDS_OF
from prosemill.dedup.signing import SIGN_TEXTS
from prosemill.runtime import kernel_cache
from prosemill.runtime.kernel_cache import Kernel


@pytest.mark.parametrize("kernel", [SIGN_TEXTS, FIND_WORDS, IDS_OF], ids=lambda kernel: kernel.name)
def test_what_is_kept_needs_no_numba(kernel: Kernel, tmp_path: Path) -> None:
    code = kernel_cache.keep(kernel_cache.compiled(kernel), kernel, [tmp_path])
    assert kernel_cache.kept(kernel, [tmp_path / "none", tmp_path]) == code
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert kernel_cache.kept(kernel, [tmp_path]) is None, "damaged"

    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from prosemill.runtime import kernel_cache\n"
        "kernel_cache.loaded(bytes.fromhex(sys.stdin.read()))\n"
        "assert not {'numba.core', 'pandas', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], input=code.hex(), text=True, check=True)
