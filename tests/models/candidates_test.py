"""One user and many items: the same predictions as with the user repeated."""

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.models import assembled
from monolith_tf.models import base
from monolith_tf.models import spec as spec_lib

_USER = ("age", "history")


def _two_towers():
    block = spec_lib.BlockSpec
    return assembled.Assembled(
        spec_lib.ModelSpec(
            blocks=(
                block(
                    name="seen",
                    layer="MLP",
                    inputs=("history", "age"),
                    args={"output_dims": [4]},
                ),
                block(
                    name="user",
                    layer="MLP",
                    inputs=("seen", "age"),
                    args={"output_dims": [3]},
                ),
                block(
                    name="item",
                    layer="MLP",
                    inputs=("item", "price"),
                    args={"output_dims": [3]},
                ),
                block(name="both", inputs=("user", "item", "age")),
            ),
            heads=(spec_lib.HeadSpec(label="click", inputs=("both", "user")),),
        )
    )


class CandidatesTest(testing.TestCase):
    def inputs(self):
        def draw(*shape):
            return tf.constant(self.rng.normal(size=shape), tf.float32)

        return base.Inputs(
            embeddings={"history": draw(1, 2), "item": draw(5, 2)},
            slices={"history": {"vec": draw(1, 2)}, "item": {"vec": draw(5, 2)}},
            masks={},
            dense={"age": draw(1, 1), "price": draw(5, 1)},
            keys={
                "history": tf.ragged.constant([[1, 2, 3]], tf.int64),
                "item": tf.range(5, dtype=tf.int64),
            },
        )

    def test_repeats_the_users_features(self):
        inputs = self.inputs()
        repeated = inputs.repeated(_USER)
        self.assertEqual(list(repeated.embeddings), ["history", "item"])
        self.assertAllEqual(
            repeated.embeddings["history"],
            np.tile(inputs.embeddings["history"], [5, 1]),
        )
        self.assertAllEqual(
            repeated.slices["history"]["vec"],
            np.tile(inputs.slices["history"]["vec"], [5, 1]),
        )
        self.assertAllEqual(repeated.dense["age"], np.tile(inputs.dense["age"], [5, 1]))
        self.assertEqual(repeated.keys["history"].to_list(), [[1, 2, 3]] * 5)
        self.assertIs(repeated.embeddings["item"], inputs.embeddings["item"])

    def test_blocks_of_the_user_run_once(self):
        inputs, model = self.inputs(), _two_towers()
        expected = model.run(inputs.repeated(_USER), base.Mode.PREDICT)
        rows = {}

        def watch(layer):
            call = layer.call

            def watched(x, *args, **kwargs):
                rows[layer.name] = len(x)
                return call(x, *args, **kwargs)

            layer.call = watched

        for layer in model._blocks.values():
            if layer is not None:
                watch(layer)
        spec = model.run(inputs, base.Mode.PREDICT, user_features=_USER)
        self.assertEqual(rows, {"seen": 1, "user": 1, "item": 5})
        self.assertAllClose(spec.predictions["click"], expected.predictions["click"])
        self.assertLen(set(spec.predictions["click"].numpy()), 5)
