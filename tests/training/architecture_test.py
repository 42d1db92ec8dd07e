"""Tests of reporting the results of searches for widths."""

import pathlib
import types

import numpy as np
import tf_keras

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import summaries
from monolith_tf.training import architecture
from monolith_tf.training import architecture_log
from monolith_tf.training import recorder
from monolith_tf.training import run as run_lib


class _Model(tf_keras.Model):
    """Holds layers in several ways, one of them unused."""

    def __init__(self):
        super().__init__()
        self.gates = layers.NASGatingLayer(["a", "b"], [2, 1], name="gates")
        self.blocks = {"razor": layers.iRazor([0, 1, 3], t=1.0, name="razor")}
        self.unused = layers.SimpleNasLayer(["c"], [4])
        self.dense = tf_keras.layers.Dense(1)
        self.gates.build([None, 3])
        self.blocks["razor"].build([None, 2, 3])
        self.gates.set_weights([np.array([1.0, -1.0])])
        probabilities = [[0.05, 0.92, 0.03], [0.96, 0.02, 0.02]]
        self.blocks["razor"].set_weights([np.log(probabilities)])


def _run(folder, model, summaries=True):
    return types.SimpleNamespace(
        step=types.SimpleNamespace(network=types.SimpleNamespace(model=model)),
        progress=run_lib.Progress(step=20),
        recorder=recorder.Recorder(folder, summaries=summaries),
    )


class ArchitectureTest(testing.TestCase):
    def test_finds_the_layers_that_search_and_are_used(self):
        model = _Model()
        found = architecture.searching_layers(model)
        self.assertCountEqual([layer.name for layer in found], ["gates", "razor"])
        self.assertIs(next(x for x in found if x.name == "gates"), model.gates)

    def test_describes_what_is_kept(self):
        expected = {
            "gates": {"a": {"kept": 2, "width": 2}, "b": {"kept": 0, "width": 1}},
            "razor": {"0": {"kept": 1, "width": 3}, "1": {"kept": 0, "width": 3}},
        }
        self.assertEqual(architecture.describe(_Model()), expected)

    def test_a_model_without_a_search_has_nothing_to_tell(self):
        model = tf_keras.Sequential([layers.MLP([2])])
        model.build([None, 3])
        self.assertEqual(architecture.describe(model), {})

    def test_logs_lines_records_and_histograms(self):
        folder = pathlib.Path(self.get_temp_dir())
        action = architecture_log.ArchitectureLog(10)
        self.assertEqual([action.next_step(step) for step in (0, 9, 10)], [10, 10, 20])
        run = _run(folder, _Model())
        with self.assertLogs("absl", "INFO") as logs:
            action.act(run)
            action.end(run)  # Same step: nothing is written twice.
        lines = [record.getMessage() for record in logs.records]
        self.assertCountEqual(
            lines,
            [
                "search | step: 20 | gates | a: 2/2 | b: 0/1",
                "search | step: 20 | razor | 0: 1/3 | 1: 0/3",
            ],
        )
        (record,) = run.recorder.log.read()
        kept = {"gates/a": 2, "gates/b": 0, "razor/0": 1, "razor/1": 0}
        kept = {f"{name}/selected_size": columns for name, columns in kept.items()}
        self.assertEqual(record, {"phase": "search", "step": 20} | kept)
        run.recorder.close()
        found = summaries.read(folder / "tensorboard" / "search")
        histograms = [tag.replace("selected_size", "probabilities") for tag in kept]
        self.assertEqual(set(found), {(tag, 20) for tag in [*kept, *histograms]})
        self.assertEqual({tag: int(found[tag, 20]) for tag in kept}, kept)

    def test_logs_what_was_found_when_the_run_ends(self):
        run = _run(pathlib.Path(self.get_temp_dir()), _Model())
        run.progress.step = 7
        with self.assertLogs("absl", "INFO") as logs:
            architecture_log.ArchitectureLog(10).end(run)
        self.assertLen(logs.records, 2)
        self.assertEqual([r["step"] for r in run.recorder.log.read()], [7])

    def test_writes_no_summaries_where_none_are_wanted(self):
        folder = pathlib.Path(self.get_temp_dir())
        run = _run(folder, _Model(), summaries=False)
        architecture_log.ArchitectureLog(10).act(run)
        self.assertEqual([path.name for path in folder.iterdir()], ["metrics.jsonl"])
