"""The golden harness must fail where values differ."""

import json
import pathlib

import tensorflow as tf
import tf_keras

from monolith_tf import testing
from monolith_tf.testing import golden

_CASE = {
    "name": "two_rows",
    "config": {"factor": 2.0},
    "call": {"training": True},
    "inputs": {"structure": "tensor", "value": [[1.0, 2.0], [3.0, 4.0]]},
    "weights": [{"name": "kernel", "shape": [2], "value": [1.0, 10.0]}],
    "uniform": [[0.5, 0.0], [0.0, 0.5]],
    "expected": [[2.5, 40.0], [6.0, 80.5]],
    "losses": [4.5],
    "state_after": {"calls": 1, "twice": 2},
    "upstream_gradient": [[1.0, 0.0], [0.0, 1.0]],
    "gradients": {"kernel": [2.0, 8.0], "inputs": [[2.0, 0.0], [0.0, 20.0]]},
    "ranks": {"a": [1], "b": None},
}


class _Noisy(tf_keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", input_shape[-1:])
        self.calls = self.add_weight("calls", [], initializer="zeros", trainable=False)
        super().build(input_shape)

    def _uniform(self, shape):
        return tf.random.uniform(shape)

    def call(self, inputs, training=None):
        noise = tf.cast(self._uniform(tf.shape(inputs)), inputs.dtype)
        if training:
            self.calls.assign_add(1.0)
        self.add_loss(4.5)
        return inputs * self.kernel * self.factor + (noise if training else 0.0)

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


class GoldenTest(testing.TestCase):
    def _run(self, **changes):
        tolerance = {"rtol": 1e-5, "atol": 1e-6}
        case = golden.GoldenCase(
            file="made_up", data=_CASE | changes, tolerance=tolerance
        )
        try:
            self.run_golden_case(
                case,
                _Noisy,
                state={"twice": lambda layer: 2 * layer.calls},
                blocks={"ranks": lambda layer, x: {"a": [1], "b": None}},
            )
        finally:
            passed, self.golden_passed = self.golden_passed, []
        self.assertEqual(passed, ["made_up/two_rows"])

    def test_passes_what_agrees(self):
        self._run()

    def test_finds_what_differs(self):
        for change in (
            {"expected": [[2.5, 40.0], [6.0, 81.0]]},
            {"losses": []},
            {"state_after": {"calls": 2}},
            {"gradients": {"kernel": [2.0, 9.0]}},
            {"ranks": {"a": [2], "b": None}},
            {"ranks": {"a": [1]}},
            {"expected_structure": "list"},
            {"uniform": [[0.5]]},
        ):
            with self.assertRaises(AssertionError, msg=str(change)):
                self._run(**change)

    def test_names_a_weight_or_block_that_is_not_there(self):
        missing = [{"name": "bias", "shape": [2], "value": [0.0, 0.0]}]
        with self.assertRaisesRegex(KeyError, "no weight `bias` among"):
            self._run(weights=missing)
        with self.assertRaisesRegex(AssertionError, "pass `blocks`"):
            self._run(gates=[1.0])

    def test_every_file_can_be_read_and_found(self):
        folder = golden.find(__file__, "dense").parent
        files = sorted(folder.glob("*.json"))
        self.assertLen(files, 36)
        cases = [c for f in files for c in golden.load_golden(__file__, f.stem)]
        self.assertLen(cases, 170)
        self.assertLen({(case.file, case.name) for case in cases}, 170)
        for case in cases:
            case.inputs()
        with self.assertRaisesRegex(FileNotFoundError, "no `golden/nothing.json`"):
            golden.find(__file__, "nothing")

    def test_files_are_what_their_script_computes(self):
        folder = golden.find(__file__, "dense").parent
        self.assertTrue((folder / "make_golden.py").exists())
        content = json.loads(pathlib.Path(folder / "dense.json").read_text())
        # Worked by hand: columns of norm 5 and 2, scaled to 10 and 3.
        case = next(c for c in content["cases"] if c["name"] == "kernel_norm_trainable")
        self.assertEqual(case["expected"], [[15.0, 2.0], [-1.0, -4.0]])
