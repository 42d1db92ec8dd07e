"""Keras finds our classes by name, regardless of the order of imports."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest
import tf_keras

import monolith_tf
from monolith_tf import _keras_registry

_PACKAGE = pathlib.Path(monolith_tf.__file__).parent
_GOLDEN = pathlib.Path(__file__).parent / "golden" / "v0_1_0"
_CHECK = """
import numpy as np
expected = np.load("expected_keras.npz")
inputs = {n: expected["inputs/" + n] for n in ("key", "word", "price")}
model = tf_keras.models.load_model("keras/%s")
answer = model.predict(inputs, verbose=0)
np.testing.assert_allclose(answer, expected["answer"], atol=1e-6)
"""
_USE_KERAS_3 = """
import numpy as np, keras
keras.Sequential([keras.layers.Dense(1)]).predict(np.ones([2, 2]), verbose=0)
"""


def _run(code):
    # As in a user's Python: in this process the package has set the switch.
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=_GOLDEN,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("imports", "form"),
    [
        ("import monolith_tf, tf_keras", "model.keras"),
        ("import tf_keras, monolith_tf", "saved_model"),
    ],
)
def test_importing_the_package_is_enough_to_load_a_model(imports, form):
    done = _run(imports + _CHECK % form)
    assert done.returncode == 0, done.stderr


def test_every_registered_class_is_known():
    for path in sorted(_PACKAGE.rglob("*.py")):
        if "register_keras_serializable" in path.read_text():
            parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
            importlib.import_module(".".join(parts))
    found = {
        name: value.__module__
        for name, value in tf_keras.utils.get_custom_objects().items()
        if name.startswith("monolith_tf>")
    }
    assert found == {
        f"monolith_tf>{name}": f"monolith_tf.{module}"
        for name, module in _keras_registry.classes().items()
    }


def test_a_package_that_is_imported_after_keras_3_was_used_works():
    done = _run(
        _USE_KERAS_3
        + "import monolith_tf as mt, tf_keras\n"
        + "layers = [mt.embedding.Embedding(2), tf_keras.layers.Flatten()]\n"
        + "model = tf_keras.Sequential([*layers, tf_keras.layers.Dense(1)])\n"
        + "model.compile('sgd', 'mse')\n"
        + "model.fit(np.ones([2, 2], int), np.ones([2, 1]), verbose=0)\n"
        + "assert model.layers[0].num_rows() == 1\n"
    )
    assert done.returncode == 0, done.stderr


def test_rejects_a_process_in_which_tf_keras_is_keras_3():
    done = _run("import tensorflow as tf\ntf.keras.layers\nimport monolith_tf")
    assert "ImportError: `tf.keras` was used before `import monolith_tf`" in done.stderr
    assert "Import monolith_tf first, or set TF_USE_LEGACY_KERAS=1" in done.stderr
