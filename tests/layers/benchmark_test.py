"""Tests of the layers' benchmark: it covers all layers and compares equal work."""

import pathlib

import numpy as np
import pytest

from monolith_tf import layers

_BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"
_SIZES = {"batch": 4, "features": 6, "dim": 2}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(_BENCHMARKS)


def test_no_layer_is_left_out():
    from layer_sides import ours
    from layer_sides import sizes

    small = sizes.Sizes(**_SIZES)
    made = {type(case.make(small)).__name__ for case in ours.CASES.values()}
    assert made == set(layers.LAYERS)


@pytest.mark.parametrize(
    ("side", "name"),
    [
        ("keras_side", "BatchNorm"),
        ("keras_side", "LayerNorm"),  # ours is the example
        ("tfrs_side", "FeatureCross"),
    ],
)
def test_a_peer_with_our_weights_gives_our_outputs_and_gradients(tmp_path, side, name):
    from layer_sides import side as side_lib

    files = [str(tmp_path / f"{i}.npz") for i in range(2)]
    side_lib.Side("ours").make(name, _SIZES, give=files[0])
    peer = side_lib.Side(side)
    assert peer.cases()[name] == {"same": True, "remark": ""}
    peer.make(name, _SIZES, give=files[1], take=files[0])
    ours, theirs = map(np.load, files)
    for key in ("outputs", "gradients"):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5)
    clock, cpu = peer.time("backward", calls=2)
    assert clock > 0.0
    assert cpu >= 0.0


def test_an_unknown_kind_of_input_is_named():
    from layer_sides import sizes

    with pytest.raises(ValueError, match="no inputs of the kind 'cube'"):
        sizes.make("cube", sizes.Sizes())
