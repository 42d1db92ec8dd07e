"""The base class of this project's tests."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf.testing import battery
from monolith_tf.testing import golden
from monolith_tf.testing import golden_run
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping


class TestCase(parameterized.TestCase, tf.test.TestCase):
    """TensorFlow's test case with parameters, a seeded generator and layer tests.

    Attributes:
      rng: NumPy generator, seeded the same way for every test.
      golden_passed: Names of the golden cases that this test passed.
    """

    # The inherited method is a test that is always skipped.
    test_session = None

    def setUp(self) -> None:
        """Seeds the generators."""
        super().setUp()
        self.rng = np.random.default_rng(0)
        self.golden_passed: list[str] = []

    def tearDown(self) -> None:
        """Resets settings of the process that a test may have changed."""
        tf_keras.mixed_precision.set_global_policy("float32")
        super().tearDown()

    def run_layer_test(
        self, layer: tf_keras.layers.Layer, **options: Any
    ) -> tf_keras.layers.Layer:
        """Runs the standard test of layers; see `battery.run`."""
        return battery.run(self, layer, **options)

    def run_golden_case(
        self,
        case: golden.GoldenCase,
        make: Callable[..., tf_keras.layers.Layer],
        **options: Any,
    ) -> tf_keras.layers.Layer:
        """Compares a layer with one golden case; see `golden_run.run`."""
        return golden_run.run(self, case, make, **options)

    def run_config_test(
        self, cls: type[tf_keras.layers.Layer], *cases: JsonMapping
    ) -> None:
        """Checks that the config keeps every constructor argument.

        Args:
          cls: A layer class.
          *cases: Constructor arguments. Together they must set every argument of the
            constructor to a value other than its default. Use several cases only if
            arguments exclude each other.
        """
        parameters = [
            p
            for p in inspect.signature(cls).parameters.values()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]
        untested = {p.name for p in parameters}
        for case in cases:
            config = self._config_of(cls, case)
            for parameter in parameters:
                name, default = parameter.name, parameter.default
                self.assertIn(name, config, f"get_config() lacks `{name}`")
                if name in case and _differs(case[name], default):
                    self._assert_kept(name, case[name], config[name])
                    untested.discard(name)
        self.assertEmpty(untested, "arguments never set off their default")

    def _config_of(
        self, cls: type[tf_keras.layers.Layer], case: JsonMapping
    ) -> JsonDict:
        """Returns a layer's config; checks that a layer made from it has the same."""
        config = cls(**case).get_config()
        text = json.dumps(config, sort_keys=True)
        twin = cls.from_config(config)
        self.assertEqual(text, json.dumps(config, sort_keys=True), "config was changed")
        self.assertEqual(text, json.dumps(twin.get_config(), sort_keys=True))
        return config

    def _assert_kept(self, name: str, given: object, kept: object) -> None:
        """Compares plain values; other values must not become None."""
        if _plain(given) and _plain(kept):
            self.assertEqual(given, kept, f"`{name}` changed in the config")
        elif given is not None:
            self.assertIsNotNone(kept, f"`{name}` was lost in the config")


def _plain(value: object) -> bool:
    """Returns whether a config stores a value unchanged."""
    if isinstance(value, list):
        return all(_plain(entry) for entry in value)
    return isinstance(value, bool | int | float | str)


def _differs(value: object, default: object) -> bool:
    """Returns whether an argument is not at its default."""
    return bool(default is inspect.Parameter.empty or value != default)
