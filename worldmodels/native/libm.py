"""The C library's elementary functions, for machine code that calls them."""

from __future__ import annotations

import ctypes
import ctypes.util

LIBRARY = ("sin", "cos", "exp", "tanh", "log1p", "atan2")


def add_symbols() -> None:
    """Tell LLVM where the C library's functions are, as ``worldmodels_sin`` and so on."""
    from llvmlite import binding

    library = ctypes.CDLL(ctypes.util.find_library("m"))
    for name in (*LIBRARY, *(f"{name}f" for name in LIBRARY)):
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        binding.add_symbol(f"worldmodels_{name}", address)
