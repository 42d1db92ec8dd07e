"""A model's layers have the same names as in a new process."""

import numpy as np
import tf_keras

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.experiment import estimator
from monolith_tf.models import layer_names
from monolith_tf.testing import small_job


def _names(count):
    return [tf_keras.layers.Dense(1).name for _ in range(count)]


class FromZeroTest(testing.TestCase):
    def test_names_inside_begin_again_and_those_after_are_new(self):
        before = _names(3)
        with layer_names.from_zero():
            inside = _names(2)
        after = _names(2)
        self.assertEqual(inside, ["dense", "dense_1"])
        self.assertLen({*before, *after}, 5)

    def test_names_after_are_new_where_more_were_made_inside(self):
        with layer_names.from_zero():
            inside = [tf_keras.layers.Softmax().name for _ in range(9)]
        self.assertNotIn(tf_keras.layers.Softmax().name, inside)

    def test_names_after_an_error_are_new(self):
        before = _names(2)
        with self.assertRaises(KeyError), layer_names.from_zero():
            raise KeyError
        self.assertNotIn(_names(1)[0], before)


def test_a_job_ends_bit_for_bit_alike_after_any_number_of_other_layers(tmp_path):
    found = []
    tf_keras.backend.reset_uids()
    for name in ("first", "second"):
        path = small_job.write(tmp_path / name)
        job = estimator.Estimator(
            path, "trainer.max_steps=6", "model.params.num_cross_layers=3"
        )
        job.train()
        checkpoint = small_job.last(tmp_path / name / "model")
        found.append(
            (small_job.rows(checkpoint.embedding_dir), small_job.dense(checkpoint))
        )
        # Of the next three, two would come before the first in order of names.
        if name == "first":
            while layers.FeatureCross().name != "feature_cross_8":
                pass
    (rows, dense), (other_rows, other_dense) = found
    assert rows == other_rows
    for name, value in dense.items():
        np.testing.assert_array_equal(other_dense[name], value, err_msg=name)
