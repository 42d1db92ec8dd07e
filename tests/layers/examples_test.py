"""The examples in the docstrings of the layers."""

import doctest
import importlib
import pathlib

from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_FOLDER = pathlib.Path(layers.__file__).parent
_MODULES = sorted(path.stem for path in _FOLDER.glob("[!_]*.py"))


class ExamplesTest(testing.TestCase):
    @parameterized.parameters(*_MODULES)
    def test_examples_print_what_they_say(self, name):
        module = importlib.import_module(f"monolith_tf.layers.{name}")
        self.assertEqual(doctest.testmod(module).failed, 0)

    def test_there_are_examples(self):
        module = importlib.import_module("monolith_tf.layers.mlp")
        self.assertGreater(doctest.testmod(module).attempted, 0)
