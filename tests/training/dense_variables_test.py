"""Tests of dense variables in checkpoints, and errors that name the difference."""

import tensorflow as tf

from monolith_tf.training import checkpoint
from monolith_tf.training import dense_variables
from tests.training import saving_case


class DenseVariablesTest(saving_case.SavingCase):
    def test_a_restored_state_has_the_saved_values(self):
        saved, other = saving_case.state(), saving_case.state()
        self.save(7, saved)
        dense_variables.restore(self.checkpoints.latest(), other)
        self.assertAllEqual(other.model.weights[0], saved.model.weights[0])
        self.assertAllEqual(other.step, 7)

    def test_names_do_not_depend_on_what_was_built_before(self):
        first = set(dense_variables.named(saving_case.state()))
        self.assertEqual(first, set(dense_variables.named(saving_case.state())))
        self.assertLen(first, 3)

    def test_a_config_that_no_longer_fits_is_reported_each_difference(self):
        saved = self.save(1, saving_case.state(units=2))
        with self.assertRaises(checkpoint.CheckpointError) as caught:
            dense_variables.restore(saved, saving_case.state(units=4))
        text = str(caught.exception)
        self.assertIn("kernel` is [[3, 2], 'float32'] in the checkpoint", text)
        self.assertIn("in the checkpoint and [[3, 4], 'float32'] in the config", text)

    def test_many_differences_are_cut_short(self):
        state = saving_case.state()
        state.more = [tf.Variable(1.0) for _ in range(22)]
        saved = self.save(1, state)
        with self.assertRaises(checkpoint.CheckpointError) as caught:
            dense_variables.restore(saved, saving_case.state())
        self.assertEqual(str(caught.exception).count("the checkpoint has"), 20)
        self.assertIn("\n  and 2 more\nFix the config", str(caught.exception))
        state.more = state.more[:20]
        saved = self.save(2, state)
        with self.assertRaises(checkpoint.CheckpointError) as caught:
            dense_variables.restore(saved, saving_case.state())
        self.assertNotIn("more\nFix", str(caught.exception))

    def test_missing_and_superfluous_variables_are_named(self):
        bigger = saving_case.state()
        bigger.extra = tf.Variable([1.0])
        saved = self.save(1, bigger)
        with self.assertRaisesRegex(checkpoint.CheckpointError, "has `extra`"):
            dense_variables.restore(saved, saving_case.state())
        saved = self.save(2, saving_case.state())
        with self.assertRaisesRegex(checkpoint.CheckpointError, "`extra`.*lacks"):
            dense_variables.restore(saved, bigger)

    def test_restore_matching_takes_what_fits(self):
        saved_state, other = saving_case.state(), saving_case.state()
        other.extra = tf.Variable([1.0])
        saved = self.save(1, saved_state)
        self.assertEqual(dense_variables.restore_matching(saved, other), ["extra"])
        self.assertAllEqual(other.model.weights[0], saved_state.model.weights[0])

    def test_restore_matching_below_a_prefix(self):
        saved_state, other = saving_case.state(), saving_case.state()
        saved_state.extra, other.extra = tf.Variable([1.0]), tf.Variable([2.0])
        saved = self.save(1, saved_state)
        self.assertEqual(dense_variables.restore_matching(saved, other, "model/"), [])
        self.assertAllEqual(other.model.weights[0], saved_state.model.weights[0])
        self.assertAllEqual(other.extra, [2.0])
