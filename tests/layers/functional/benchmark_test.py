"""Tests of the benchmarks of fused layers: their sides compute the same."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

_BENCHMARKS = pathlib.Path(__file__).resolve().parents[3] / "scripts" / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(_BENCHMARKS)


@pytest.mark.parametrize("name", ["plain", "unfused", "fused"])
@pytest.mark.parametrize("operation", ["cin", "senet"])
def test_sides_give_numpys_answers(operation, name):
    from fused_sides import answers
    from fused_sides import side
    from fused_sides.case import Case

    units = (4, 3, 2) if operation == "cin" else ()
    case = Case(operation, 300, 5, 2, units, "relu")
    x, weights, upstream = side.draw(case)
    _, training = side.functions(name, case, jit_compile=False)
    found = tf.nest.flatten(training(x, weights, upstream))
    expected = answers.training(case, x, weights, upstream)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(two).max())


def test_programs_for_a_gpu_are_written(tmp_path, monkeypatch):
    import fused_gpu
    from fused_sides.case import Case

    case = Case("senet", 4, 3, 2)
    monkeypatch.setattr(fused_gpu, "cases", lambda batch: [case])
    fused_gpu.write(tmp_path, 4)
    arrays = np.load(tmp_path / "0.npz")
    assert str(arrays["case"]) == "senet B 4 m 3 D 2"
    assert [arrays[f"output_{i:02}"].shape for i in range(2)] == [(4, 3, 2)] * 2
    for name in fused_gpu.SIDES:
        text = (tmp_path / f"0.{name}.mlir").read_text(encoding="utf-8")
        assert "stablehlo.dot" in text
        assert "%arg5: tensor<4x3x2xf32>" in text
