"""A new layer takes a file: the registry, tests, benchmark and docs find it."""

import os
import pathlib
import shutil
import subprocess
import sys

import monolith_tf

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LAYER = '''
"""A layer that doubles."""

import tf_keras

from monolith_tf.layers.parts import base


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class Doubled(base.Layer):
    """Doubles, `y = 2 * x`.

    Input and output shape: any.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return 2.0 * inputs

    def get_config(self):
        return super().get_config()

    @classmethod
    def example(cls, sizes):
        return cls(), sizes.flat
'''
_FOUND = """
import sys

import numpy as np
import tf_keras

from monolith_tf import layers

sys.path[:0] = ["scripts", "scripts/benchmarks"]


def test_keras_finds_doubled():
    assert "monolith_tf.layers.doubled" not in sys.modules
    config = {"class_name": "monolith_tf>Doubled", "config": {"name": "twice"}}
    layer = tf_keras.layers.deserialize(config)
    assert layer.name == "twice"
    assert type(layer) is layers.Doubled
    assert "Doubled" in dir(layers)


def test_the_benchmark_finds_doubled(tmp_path):
    from layer_sides import side

    file = str(tmp_path / "arrays.npz")
    side.Side("ours").make("Doubled", {"batch": 4, "features": 3, "dim": 2}, file)
    assert np.load(file)["outputs"].shape == (4 * 3 * 2,)


def test_the_docs_find_doubled():
    import make_layer_docs

    row = "| **Doubled**<br>Doubles, `y = 2 * x`. | `y = 2 * x` | in and out: any. |"
    assert row in make_layer_docs.text()
"""
_PASSED = (
    "doubled_test.py::test_keras_finds_doubled",
    "doubled_test.py::test_the_benchmark_finds_doubled",
    "doubled_test.py::test_the_docs_find_doubled",
    "every_layer_test.py::test_float64_works[Doubled]",
    "parameter_servers_test.py::ParameterServersTest::test_trains_Doubled",
)


def test_a_file_is_enough(tmp_path):
    for folder in (pathlib.Path(monolith_tf.__file__).parent, _ROOT / "scripts"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    tests = tmp_path / "tests" / "layers"
    tests.mkdir(parents=True)
    for name in ("every_layer_test.py", "parameter_servers_test.py"):
        shutil.copy(_ROOT / "tests" / "layers" / name, tests)
    (tmp_path / "monolith_tf/layers/doubled.py").write_text(_LAYER.lstrip())
    (tests / "doubled_test.py").write_text(_FOUND)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-k", "doubled", tests],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for test in _PASSED:
        assert f"tests/layers/{test} PASSED" in done.stdout, done.stdout
