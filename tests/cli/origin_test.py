"""What the command prints for errors in a user's code: the message and the line."""

import sys
import textwrap

import pytest
import tensorflow as tf
import tf_keras

from monolith_tf.cli import main
from monolith_tf.cli import origin

ROWS = "user,price,click\n" + "".join(f"{i % 5},0.{i},{i % 2}\n" for i in range(10, 42))
CONFIG = """\
model_dir: model
data: {format: csv, train: rows.csv, batch_size: 16}
features:
  - {name: user, kind: id, table: user}
  - {name: price, kind: dense}
labels: [click]
tables: [{name: user, dim: 4}]
model: {class: "my_model:MyModel"}
trainer: {max_steps: 1, steps_per_loop: 1, deterministic: false}
"""
# The line that goes wrong is number 15.
MODEL = """\
import tensorflow as tf
import tf_keras
import monolith_tf


class MyModel(monolith_tf.Model):
    def __init__(self, params):
        super().__init__()
        self._cross = monolith_tf.layers.FeatureCross()
        self._dense = tf_keras.layers.Dense(1)
        self._checked = Checked()

    def model_fn(self, inputs, mode):
        x = inputs.concat()
        LINE
        logits = self._dense(x)[:, 0]
        predictions = {"click": tf.sigmoid(logits)}
        if mode is monolith_tf.Mode.PREDICT:
            return monolith_tf.EstimatorSpec(mode=mode, predictions=predictions)
        loss = monolith_tf.losses.log_loss(inputs.labels["click"], logits)
        spec = monolith_tf.EstimatorSpec
        return spec(mode=mode, predictions=predictions, loss=loss)


class Checked(tf_keras.layers.Layer):
    def call(self, x):
        if x.shape[1] > 4:
            raise ValueError("At most 4 columns are taken.")
        return x
"""
HINT = "Add --debug to see the whole traceback.\n"


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    tf_keras.backend.reset_uids()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "job.yaml").write_text(CONFIG)

    def run(command, *arguments, **files):
        for module, text in files.items():
            (tmp_path / f"{module}.py").write_text(text)
        arguments = ["monolith-tf", command, "job.yaml", *arguments, "--verbose"]
        status = main.main(main.parse(arguments))
        for module in files:
            sys.modules.pop(module, None)
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "x = tf.contact([x], axis=1)",
            "AttributeError: module 'tensorflow' has no attribute 'contact'",
        ),
        ("x = tf.nn.relu(xx)", "NameError: name 'xx' is not defined"),
        (
            'x = inputs.embeddings["usr"]',
            "UnknownNameError: `inputs.embeddings` has no `usr`. Did you mean `user`? "
            "It has `user`.",
        ),
        (
            "x = self._cross(x, x[:, :3])",
            "`x0` and `x` must have the same shape. Received: x0.shape=(None, 5), "
            "x.shape=(None, 3).",
        ),
        (
            "x = self._dense(x[0, 0])",
            'Input 0 of layer "dense" is incompatible with the layer: expected '
            "min_ndim=2, found ndim=0. Full shape received: ()",
        ),
    ],
)
def test_an_error_in_model_fn_shows_its_line(call, line, message):
    done = call("check", "--model", my_model=MODEL.replace("LINE", line))
    assert done == (
        1,
        f"error: {message}\n  my_model.py:15 in model_fn: {line}\n{HINT}",
    )


def test_an_error_that_a_layer_raises_shows_the_layers_line(call):
    done = call("check", "--model", my_model=MODEL.replace("LINE", "self._checked(x)"))
    raised = 'raise ValueError("At most 4 columns are taken.")'
    assert done == (
        1,
        "error: At most 4 columns are taken.\n"
        f"  my_model.py:28 in call: {raised}\n{HINT}",
    )


def test_a_shape_error_names_the_operation(call):
    line = "x = tf.concat([x, tf.zeros([7, 7, 7])], axis=1)"
    status, err = call("check", "--model", my_model=MODEL.replace("LINE", line))
    first, *others = err.splitlines()
    assert status == 1
    assert first.startswith(
        "error: Shape must be rank 2 but is rank 3 for 'my_model/concat_1 = ConcatV2["
    )
    assert others == [f"  my_model.py:15 in model_fn: {line}", HINT.strip()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "x = tf.nn.relu(tf.reshape(x, [-1, 7]))",
            "Input to reshape is a tensor with 80 values, but the requested shape "
            "requires a multiple of 7",
        ),
        (
            'x = tf.debugging.check_numerics((x - x) / 0, "Bad.")',
            "Bad. : Tensor had NaN values",
        ),
    ],
)
def test_an_error_of_the_runtime_shows_the_line_of_its_operation(call, line, message):
    status, err = call("train", my_model=MODEL.replace("LINE", line))
    assert status == 1
    assert err == (
        f"error: InvalidArgumentError: {message}\n"
        f"  my_model.py:15 in model_fn: {line}\n{HINT}"
    )


def test_errors_outside_of_model_fn(call):
    broken = MODEL.replace("self._cross = ", "self._cross = layer.")
    assert call("check", "--model", my_model=broken) == (
        1,
        "error: NameError: name 'layer' is not defined\n"
        "  my_model.py:9 in __init__: self._cross = layer.monolith_tf.layers."
        "FeatureCross()\n" + HINT,
    )
    status, err = call("check", "--model", my_model="class MyModel(:\n    pass\n")
    assert status == 1
    assert err == (
        "error: SyntaxError: invalid syntax (my_model.py, line 1)\n"
        f"  my_model.py:1 in <module>: class MyModel(:\n{HINT}"
    )


def test_an_error_of_a_generator_of_rows(call):
    made = textwrap.dedent(
        """\
        import tensorflow as tf

        def rows():
            yield {"user": [int("five")], "price": [0.5], "click": [1.0]}

        def make(split):
            types = {"user": tf.int64, "price": tf.float32, "click": tf.float32}
            specs = {name: tf.TensorSpec([None], types[name]) for name in types}
            return tf.data.Dataset.from_generator(rows, output_signature=specs)
        """
    )
    status, err = call(
        "train",
        "data={input_fn: 'rows:make'}",
        my_model=MODEL.replace("LINE", "pass"),
        rows=made,
    )
    assert status == 1
    assert err == (
        "error: InvalidArgumentError: ValueError: invalid literal for int() with base "
        "10: 'five'\n"
        '  rows.py:4 in rows: yield {"user": [int("five")], "price": [0.5], '
        f'"click": [1.0]}}\n{HINT}'
    )


def test_where_no_line_is_the_users_the_layer_is_named(call):
    status, err = call(
        "check",
        "--model",
        "model={blocks: [{name: pair, layer: FeatureCross, inputs: [user, price], "
        "join: none}], heads: [{label: click, inputs: pair}]}",
    )
    assert status == 1
    assert err == (
        "error: `x0` and `x` must have the same shape. Received: x0.shape=(None, 4), "
        f"x.shape=(None, 1).\n  in layer 'pair' (type FeatureCross)\n{HINT}"
    )


def test_debug_shows_the_whole_traceback_first(call):
    line = "x = tf.contact([x, x], axis=1)"
    model = MODEL.replace("LINE", line)
    status, err = call("check", "--model", "--debug", my_model=model)
    assert status == 1
    assert err.startswith("Traceback (most recent call last):\n")
    assert "in user code:" in err
    assert err.endswith(
        "\nerror: AttributeError: module 'tensorflow' has no attribute 'contact'\n"
        f"  my_model.py:15 in model_fn: {line}\n"
    )


def test_an_error_below_a_handled_one_is_not_taken_for_it():
    try:
        try:
            raise KeyError("found elsewhere")
        except KeyError:
            raise ValueError("What was meant.")  # noqa: B904
    except ValueError as error:
        found = origin.find(error)
    assert found.error.args == ("What was meant.",)
    assert found.message == "What was meant."


def test_without_a_line_the_operation_is_named():
    text = (
        "Graph execution error:\n\nDetected at node gradient/mul defined at (most "
        "recent call last):\n<stack traces unavailable>\nIncompatible shapes: [70] "
        "vs. [64]\n\t [[{{node gradient/mul}}]] [Op:__inference_loop_4913]"
    )
    found = origin.find(tf.errors.InvalidArgumentError(None, None, text))
    assert found.message == "Incompatible shapes: [70] vs. [64]"
    assert found.place == "in the operation gradient/mul"


def test_an_error_on_a_worker_names_the_worker():
    peer = "Additional GRPC error information from remote target /job:worker/task:0:"
    text = (
        "Graph execution error:\n\nIncompatible shapes: [70] vs. [64]\n\t "
        f"[[{{{{node mul}}}}]]\n{peer}\n:UNKNOWN:Error received from peer  "
        '{grpc_status:3, grpc_message:"Incompatible shapes"} [Op:__inference_work_49]'
    )
    found = origin.find(tf.errors.InvalidArgumentError(None, None, text))
    assert found.message == f"Incompatible shapes: [70] vs. [64]\n{peer}"
