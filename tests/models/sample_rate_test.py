"""Tests of a head whose rows with label 0 were sampled."""

import numpy as np

from monolith_tf import testing
from monolith_tf.models import assembled
from monolith_tf.models import base
from monolith_tf.models import spec as spec_lib


class SampleRateTest(testing.TestCase):
    def test_the_loss_is_of_moved_logits_and_predictions_are_not(self):
        head = spec_lib.HeadSpec(label="click", inputs=("x",), sample_rate="rate")
        block = spec_lib.BlockSpec(name="x", inputs=("price",))
        model = assembled.Assembled(spec_lib.ModelSpec(blocks=(block,), heads=(head,)))
        logits = np.array([0.5, -1.0, 2.0])
        labels = np.array([1.0, 0.0, 0.0])
        rates = np.array([0.1, 0.1, 1.0])
        inputs = base.Inputs(
            embeddings={},
            dense={"price": logits[:, None].astype("float32")},
            labels={"click": labels.astype("float32"), "rate": rates.astype("float32")},
        )
        spec = model.run(inputs, base.Mode.TRAIN)
        # The odds are exp(logit) over all rows, and 1 / rate times that over sampled
        # rows.
        odds = np.exp(logits) / rates
        shown = np.where(labels == 1, odds / (1 + odds), 1 / (1 + odds))
        self.assertAllClose(spec.loss, -np.mean(np.log(shown)))
        expected = 1 / (1 + np.exp(-logits))
        self.assertAllClose(spec.predictions["click"], expected)
        served = model.run(
            base.Inputs(embeddings={}, dense=inputs.dense), base.Mode.PREDICT
        )
        self.assertAllClose(served.predictions["click"], expected)
