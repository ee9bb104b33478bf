"""Equations made fast: traced once, printed as straight-line Python, or compiled through LLVM."""
