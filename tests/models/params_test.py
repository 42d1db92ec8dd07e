"""Tests of registered models' parameters and of the outputs they declare."""

import dataclasses
import importlib
import math

import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.models import base
from monolith_tf.models import params
from monolith_tf.models import registry
from monolith_tf.models import spec

# The required parameters of each, for the features and labels below.
LEAST = {
    "autoint": {"label": "click"},
    "dcn": {"label": "buy"},
    "fibinet": {"label": "click"},
    "final_mlp": {"label": "click", "contexts": ["user", "item"]},
    "mmoe": {"tasks": ["buy", "click"]},
    "two_tower": {
        "label": "click",
        "user_features": ["user"],
        "item_features": ["item"],
        "item": "item",
    },
}


class ParamsTest(testing.TestCase):
    @parameterized.parameters(*LEAST)
    def test_a_model_gives_what_its_parameters_say(self, name):
        model = registry.create(spec.ModelSpec(name=name, params=LEAST[name]))
        declared = params.OF_MODEL[name](
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in LEAST[name].items()
            }
        )
        slices = {
            feature: {"vec": tf.ones([3, 4]), "linear": tf.ones([3, 1])}
            for feature in ("user", "item")
        }
        inputs = base.Inputs(
            embeddings={
                name: tf.concat([*s.values()], 1) for name, s in slices.items()
            },
            slices=slices,
        )
        made = model.run(inputs, base.Mode.PREDICT)
        self.assertEqual(tuple(made.predictions), declared.heads)
        self.assertEqual(tuple(made.extra_outputs), declared.extra_outputs)

    def test_the_classes_are_those_of_the_models(self):
        self.assertEqual(set(params.OF_MODEL), set(spec.BUILT_IN))
        self.assertEqual(set(params.OF_MODEL), set(LEAST))
        for name, path in spec.BUILT_IN.items():
            module, _, class_name = path.partition(":")
            class_ = getattr(importlib.import_module(module), class_name)
            self.assertIs(class_.Params, params.OF_MODEL[name])

    def test_every_value_is_described(self):
        for class_ in params.OF_MODEL.values():
            said = class_.__doc__.partition("Attributes:\n")[2]
            for field in dataclasses.fields(class_):
                self.assertIn(f"\n      {field.name}: ", f"\n{said}")

    def test_widths_and_shares_have_bounds(self):
        with self.assertRaisesRegex(ValueError, r"^`hidden_units` must be at least 1"):
            params.DCNParams(label="click", hidden_units=(8, 0))
        with self.assertRaisesRegex(ValueError, r"^`hidden_units` must be at least 1"):
            contexts = ("user", "item")
            params.FinalMLPParams(
                label="click", contexts=contexts, hidden_units=((5,), (-5,))
            )
        with self.assertRaisesRegex(ValueError, r"^`hidden_units` must have at least"):
            params.FinalMLPParams(
                label="click", contexts=contexts, hidden_units=((5,), ())
            )
        for wrong in (1.0, -0.1, math.nan):
            with self.assertRaisesRegex(ValueError, r"`dropout` must be in \[0, 1\)"):
                params.AutoIntParams(label="click", dropout=wrong)
        with self.assertRaisesRegex(ValueError, "`tasks` must name different labels"):
            params.MMoEParams(tasks=("click", "click"))
