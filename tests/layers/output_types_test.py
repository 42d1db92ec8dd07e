"""Tests of `out_type` and `keep_list`, which layers over features share."""

import numpy as np
import pytest

from monolith_tf import layers

_LAYERS = {
    # Layer of 4 features of width 3 -> width of each output.
    "AllInt": (lambda **how: layers.AllInt(2, **how), 2),
    "AutoInt": (lambda **how: layers.AutoInt(**how), 3),
    "iRazor": (lambda **how: layers.iRazor([0, 3], **how), 3),
    "SeNet": (lambda **how: layers.SeNet(4, 1, **how), 3),
}


@pytest.mark.parametrize("name", _LAYERS)
@pytest.mark.parametrize(
    ("out_type", "keep_list"),
    [("concat", False), ("concat", True), ("stack", False), (None, False)],
)
def test_output_types(name, out_type, keep_list):
    make, dim = _LAYERS[name]
    outputs = make(out_type=out_type, keep_list=keep_list)(np.ones([2, 4, 3]))
    several = isinstance(outputs, list)
    found = [tuple(t.shape) for t in outputs] if several else tuple(outputs.shape)
    assert (
        found
        == {
            ("concat", False): (2, 4 * dim),
            ("concat", True): [(2, 4 * dim)],
            ("stack", False): (2, 4, dim),
            (None, False): [(2, dim)] * 4,
        }[out_type, keep_list]
    )
