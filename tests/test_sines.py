"""Sines and cosines of lanes: near the true ones everywhere, and the same however many lanes there are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from physgym.compile import sines
from physgym.compile.native import add_symbols, available, engine_of, function_of

pytestmark = pytest.mark.skipif(not available(), reason="needs llvmlite")


def probe(name: str, lanes: int) -> Callable[[np.ndarray], np.ndarray]:
    """``name`` of as many numbers as there are ``lanes``, compiled."""
    from llvmlite import ir

    add_symbols()
    module, double = ir.Module(name="probe"), ir.DoubleType()
    kind = double if lanes == 1 else ir.VectorType(double, lanes)
    pointer = double.as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer] * 2), name="probe")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    given, made = (builder.bitcast(place, kind.as_pointer()) for place in function.args)
    found = sines.call(module, builder, name, builder.load(given, align=8), lanes)
    builder.store(found, made, align=8)
    builder.ret_void()
    compiled = function_of(engine_of(str(module)), "probe")

    def apply(x: np.ndarray) -> np.ndarray:
        padded = np.zeros(-(-len(x) // lanes) * lanes)
        padded[: len(x)] = x
        result = np.empty_like(padded)
        for at in range(0, len(padded), lanes):
            compiled(*(ctypes.c_void_p(a[at:].ctypes.data) for a in (padded, result)))
        return result[: len(x)]

    return apply


@pytest.fixture(scope="module")
def angles() -> np.ndarray:
    rng = np.random.default_rng(0)
    wide = [rng.uniform(-scale, scale, 400) for scale in (1e-8, 1.0, 10.0, 1e4, 1e6)]
    edges = np.arange(-40, 41) * np.pi / 4
    return np.concatenate([*wide, edges, np.nextafter(edges, 9e9), [0.0, -0.0, 1e6]])


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sines_are_within_3e_16(name: str, lanes: int, angles: np.ndarray) -> None:
    found = probe(name, lanes)(angles)
    truth = getattr(np, name)(angles.astype(np.longdouble))
    if np.finfo(np.longdouble).nmant > 52:
        assert float(np.abs(found - truth).max()) < 3e-16
    np.testing.assert_array_equal(found, probe(name, 1)(angles))
    assert np.all(np.abs(found) <= 1.0 + 2.3e-16)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_far_arguments_are_the_c_librarys_and_others_nan(name: str) -> None:
    far = np.array([1e7, -3.3e9, 0.5, 1e22, 2.0, 1e300, -1.0, 3.0])
    for lanes in (1, 8):
        found = probe(name, lanes)(far)
        np.testing.assert_allclose(found, getattr(np, name)(far), rtol=0, atol=3e-16)
        odd = probe(name, lanes)(np.array([np.inf, -np.inf, np.nan, 0.0, 1.0, 2.0, 3.0, 4.0]))
        assert np.isnan(odd[:3]).all() and np.isfinite(odd[3:]).all()
