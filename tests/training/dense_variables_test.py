"""Tests of dense variables in checkpoints, and errors that name the difference."""

import tensorflow as tf
from tensorflow.python.distribute import sharded_variable

from monolith_tf import flat_layout
from monolith_tf import variable_paths
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

    def test_a_checkpoint_fills_an_export_s_vector_as_the_live_network_does(self):
        root = saving_case.state()
        root.model.shards = sharded_variable.ShardedVariable(
            [tf.Variable([[1.0, 2.0], [3.0, 4.0]]), tf.Variable([[5.0, 6.0]])]
        )
        root.model.seen = tf.Variable([-1, 5], dtype=tf.int64, trainable=False)
        saved = self.save(1, root)
        live = {
            path: variable_paths.value(variable)
            for path, variable in dense_variables.named(root).items()
        }
        kinds = {p: (v.shape, v.dtype.name) for p, v in live.items() if p != "step"}
        layout = flat_layout.FlatLayout.of(kinds)
        self.assertAllEqual(live["model/shards"], [[1, 2], [3, 4], [5, 6]])
        found = dense_variables.values(saved, "model/")
        self.assertEqual(set(found), set(kinds))
        vector = layout.filled(found)
        self.assertEqual(vector.tobytes(), layout.filled(live).tobytes())
        back = flat_layout.FlatLayout.from_json(layout.to_json()).values(vector)
        for path, value in found.items():
            self.assertAllEqual(back[path], value)
        file = next(saved.path.glob("dense.data*"))
        file.write_bytes(file.read_bytes()[:-5])
        with self.assertRaises(checkpoint.DamagedCheckpointError):
            dense_variables.values(saved, "model/")
