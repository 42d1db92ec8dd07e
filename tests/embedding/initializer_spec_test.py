"""Tests of initializers as data."""

import dataclasses

import pydantic
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import initializer_spec


def load(value):
    adapter = pydantic.TypeAdapter(initializer_spec.InitializerSpec)
    return adapter.validate_python(value)


class InitializerSpecTest(testing.TestCase):
    def test_defaults(self):
        self.assertEqual(
            dataclasses.astuple(initializer_spec.initializer("uniform")),
            ("uniform", -0.05, 0.05),
        )
        for name in ("normal", "truncated_normal"):
            drawn = initializer_spec.initializer(name)
            self.assertEqual(dataclasses.astuple(drawn), (name, 0.0, 0.05))

    def test_config_gives_a_name_or_a_mapping(self):
        self.assertEqual(load("zeros"), initializer_spec.ZerosSpec())
        self.assertEqual(
            load({"name": "constant", "value": 3}),
            initializer_spec.ConstantSpec(value=3.0),
        )

    @parameterized.parameters(
        ("constant", {"value": float("inf")}, r"`value` must be finite.*value=inf"),
        ("constant", {}, r"constant\.value\n +Field required"),
        ("uniform", {"minval": 1.0}, r"`maxval` must not be below.*minval=1\.0"),
        ("normal", {"stddev": -1.0}, r"`stddev` must not be negative.*=-1\.0"),
        ("truncated_normal", {"stddev": -1.0}, r"`stddev` must not be negative"),
        ("gaussian", {}, "'gaussian' found"),
    )
    def test_rejects(self, name, parameters, message):
        with self.assertRaisesRegex(ValueError, message):
            initializer_spec.initializer(name, **parameters)
