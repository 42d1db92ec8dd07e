"""Dense weights of a served model change in place, all at once."""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.distribute import sharded_variable

from monolith_tf import flat_layout
from monolith_tf import testing
from monolith_tf import variable_paths
from monolith_tf.export import clean_process
from monolith_tf.export import errors
from monolith_tf.export import metadata
from monolith_tf.export import saved_model
from monolith_tf.export import spec as spec_lib
from monolith_tf.lineage import Branch
from monolith_tf.lineage import Lineage
from monolith_tf.models import base
from monolith_tf.testing import small_network

_LINEAGE = Lineage((Branch("mine"),))
_WEIGHTS = {"user": {7: [1, 2, 3], 8: [0, 0, 1]}, "item": {1: [1, 1, 1]}}
_COLUMNS = small_network.sample([7, 9, 8], [[1], [], [5, 1]], [1, 2, 1], [1, 2, 3])


class Dense(base.Model):
    """Has variables of several types, and reads them in many ways."""

    def __init__(self):
        super().__init__()
        draw = np.random.default_rng(0).normal
        self.tower = tf_keras.Sequential(
            [
                tf_keras.layers.Dense(5, activation="relu"),
                tf_keras.layers.BatchNormalization(),
                tf_keras.layers.Dense(3, dtype="mixed_bfloat16"),
            ]
        )
        self.tower.build([None, 10])
        self.scale = tf.Variable(draw(size=[4, 3]).astype(np.float32))
        self.shift = tf.Variable(0.5)
        self.big = tf.Variable([1e300, -2e300], dtype=tf.float64)
        self.half = tf.Variable([1.5, -2.5, 3.5], dtype=tf.bfloat16)
        self.count = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self.codes = tf.Variable([-1, 7], dtype=tf.int32, trainable=False)
        self.flags = tf.Variable([True, False, True], trainable=False)
        self.names = tf.Variable(["a", "b"], trainable=False)

    @tf.function
    def _inner(self, x):
        return x * self.scale[0] + tf.gather(self.scale, [1])[0]

    def model_fn(self, inputs, mode):
        x = tf.cast(self.tower(inputs.concat(), training=False), tf.float32)
        x = self._inner(x)
        x = tf.cond(
            tf.reduce_sum(x) > 0.0, lambda: x + self.shift, lambda: x - self.shift
        )
        for number in tf.range(3):
            x += tf.cast(number, tf.float32) * self.scale.sparse_read([2])[0]
        x = tf.switch_case(
            tf.size(x) % 2, [lambda: x * 2.0, lambda: x + tf.gather_nd(self.scale, [3])]
        )
        flags = tf.cast(self.flags, tf.float32) * tf.cast(self.half, tf.float32)
        whole = tf.reduce_sum(tf.cast(self.codes, tf.int64)) * self.count
        rows = tf.fill([tf.shape(x)[0]], self.big[0] + self.big[1])
        return base.EstimatorSpec(
            mode=mode,
            predictions={"click": tf.sigmoid(tf.reduce_sum(x, axis=1))},
            extra_outputs={
                "x": x + flags,
                "rows": rows,
                "whole": tf.fill([tf.shape(x)[0]], whole),
                "name": tf.fill([tf.shape(x)[0]], self.names[1]),
            },
        )


def changed(model, seed):
    """Sets all variables to other values."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape, kind = variable.shape, variable.dtype
        if kind == tf.string:
            continue
        if kind.is_bool:
            value = rng.integers(0, 2, shape).astype(bool)
        elif kind.is_integer:
            value = rng.integers(-9, 9, shape)
        else:
            value = np.abs(rng.normal(size=shape)) + 0.1
        variable.assign(tf.cast(value, kind))


@contextlib.contextmanager
def started(path):
    """Yields a function that answers requests as one start of a server."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(path))

        def run(key, **inputs):
            signature = meta_graph.signature_def[key]
            return session.run(
                {name: info.name for name, info in signature.outputs.items()},
                {signature.inputs[n].name: v for n, v in inputs.items()},
            )

        yield run


def predict(run):
    """Returns the answer of a served model to `_COLUMNS`."""
    names = ("user", "item", "price")
    return run(
        "serving_default",
        history=np.array([[1, 0], [0, 0], [5, 1]], np.int64),
        history_length=np.array([1, 0, 2], np.int64),
        **{name: _COLUMNS[name] for name in names},
    )


def piece(values=(), offset=0, upload=0, is_last=False, **sender):
    """Returns the inputs of `update_dense`."""
    given = {"step": 0, "token": 0, "newest": 1000} | sender
    lineage = given.pop("lineage", _LINEAGE)
    return {
        "values": np.array(values, np.float32),
        "offset": offset,
        "upload": upload,
        "is_last": is_last,
        "lineage": str(lineage),
        **given,
    }


def export(model, folder, **options):
    """Exports a model that takes updates."""
    chunks = small_network.rows(_WEIGHTS)
    return saved_model.export(
        small_network.make(model=model),
        small_network.COLUMNS,
        folder,
        rows=lambda: chunks,
        spec=spec_lib.ExportSpec(spare_rows=4, **options),
        sample=_COLUMNS,
        origin=saved_model.Origin(lineage=_LINEAGE, step=100),
    )


def vector(model, path):
    """Returns a model's dense weights, as the vector of an export."""
    layout = flat_layout.FlatLayout.from_json(metadata.read(path)["dense"])
    named = variable_paths.named(model)
    return layout.filled({"model/" + p: v.numpy() for p, v in named.items()})


class DenseUpdatesTest(testing.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        model = Dense()
        changed(model, 1)
        cls.first = export(model, pathlib.Path(folder.name))
        layout = metadata.read(cls.first)["dense"]
        cls.layout = flat_layout.FlatLayout.from_json(layout)
        cls.old = vector(model, cls.first)
        changed(model, 2)
        cls.second = export(model, pathlib.Path(folder.name))
        cls.new = vector(model, cls.first)

    def assert_same(self, found, wanted):
        self.assertEqual(set(found), set(wanted))
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)

    @contextlib.contextmanager
    def refused(self, reason):
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, f"update_dense: {reason}"
        ):
            yield

    def send(self, run, values, cut, **sender):
        """Sends a vector in two pieces; returns the answer."""
        answer = run("update_dense", **piece(values[:cut], **sender | {"step": 0}))
        rest = piece(values[cut:], cut, answer["upload"], True, **sender)
        return run("update_dense", **rest)

    def test_a_served_model_becomes_a_fresh_export_bit_for_bit(self):
        size, values = self.layout.size, self.new
        with started(self.second) as run:
            wanted = predict(run)
            read = run("read_dense", offset=0, size=size + 5)
            self.assertEqual(read["values"].tobytes(), values.tobytes())
        with started(self.first) as run:
            before = predict(run)
            answer = {"upload": 0, "token": 0}
            for start in range(0, size, 50):
                end = min(start + 50, size)
                request = piece(
                    values[start:end],
                    start,
                    answer["upload"],
                    end == size,
                    step=120 if end == size else 0,
                    newest=120,
                    token=answer["token"],
                )
                answer = run("update_dense", **request)
                self.assertEqual((answer["received"], answer["size"]), (end, size))
                if end < size:  # Nothing has changed so far.
                    self.assertEqual(answer["dense_step"], 100)
                    self.assert_same(predict(run), before)
            request["upload"] = answer["upload"]
            for _ in range(2):  # The last once more does no harm.
                self.assertEqual(answer["step"], 120)
                self.assertEqual(answer["dense_step"], 120)
                self.assert_same(predict(run), wanted)
                answer = run("update_dense", **request)
            again = run("read_dense", offset=16, size=size)
            self.assertEqual(again["values"].tobytes(), values[16:].tobytes())
            self.assertEqual(again["upload"], answer["upload"])
            self.assertEqual(again["size"], size)
            layout = json.loads(again["layout"])
            self.assertEqual(layout, metadata.read(self.first)["dense"])

    def test_every_type_keeps_its_bits(self):
        found = self.layout.values(self.new)
        kinds = {str(value.dtype) for value in found.values()}
        self.assertGreaterEqual(
            kinds, {"float32", "float64", "bfloat16", "int64", "int32", "bool"}
        )
        self.assertNotIn("model/names", found)
        self.assertEqual(self.layout.filled(found).tobytes(), self.new.tobytes())
        for place in self.layout.places.values():
            self.assertEqual(place.offset % 16, 0)
        with self.assertRaisesRegex(ValueError, "`model/big`, which the job lacks"):
            self.layout.filled({p: v for p, v in found.items() if p != "model/big"})
        with self.assertRaisesRegex(ValueError, r"`model/flags` has the shape \[2\]"):
            self.layout.filled({**found, "model/flags": np.array([True, False])})

    def test_an_export_has_no_other_dense_variable(self):
        reader = tf.train.load_checkpoint(str(self.first / "variables" / "variables"))
        sizes = [
            (name, shape)
            for name, shape in reader.get_variable_to_shape_map().items()
            if not name.startswith(("tables/", "updates/", "dense_updates/", "_CHECK"))
        ]
        key = "/.ATTRIBUTES/VARIABLE_VALUE"
        self.assertCountEqual(
            sizes, [("flat/values" + key, [self.layout.size]), ("dense/0" + key, [2])]
        )

    def test_of_two_senders_at_once_only_the_later_one_goes_on(self):
        with started(self.first) as run:
            one = run("update_dense", **piece(self.old[:40] * 2))
            two = run("update_dense", **piece(self.new[:80]))
            self.assertGreater(two["upload"], one["upload"])
            with self.refused("another upload of dense weights has begun"):
                run("update_dense", **piece(self.old[40:], 40, one["upload"], True))
            rest = piece(self.new[80:], 80, two["upload"], True)
            run("update_dense", **rest)
            read = run("read_dense", offset=0, size=self.layout.size)
            self.assertEqual(read["values"].tobytes(), self.new.tobytes())
            with self.refused("another upload"):  # It comes late.
                run("update_dense", **piece(self.old[40:], 40, one["upload"], True))

    def test_an_upload_that_was_given_up_leaves_nothing(self):
        with started(self.first) as run:
            before = predict(run)
            run("update_dense", **piece(self.new[:80]))
            run("update_dense", **piece(self.new[:40]))
            upload = run("update_dense", **piece())["upload"]
            with self.refused("the vector of dense weights is not complete"):
                run("update_dense", **piece(self.new[40:60], 40, upload, True))
            with self.refused("pieces must come in order, without a gap"):
                run("update_dense", **piece(self.new[80:], 80, upload, True))
            with self.refused("the vector of dense weights is not complete"):
                run("update_dense", **piece(upload=upload, is_last=True))
            self.assert_same(predict(run), before)
            answer = run("update_dense", **piece(self.new[40:], 40, upload))
            self.assert_same(predict(run), before)
            run("update_dense", **piece((), 40, upload, True))  # The flag by itself.
            self.assertEqual(answer["received"], self.layout.size)
            read = run("read_dense", offset=0, size=self.layout.size)
            self.assertEqual(read["values"].tobytes(), self.new.tobytes())

    def test_what_follows_a_served_upload_is_not_served_before_its_end(self):
        size = self.layout.size
        with started(self.first) as run:
            answer = self.send(run, self.new, 40)
            more = piece(np.ones([60]), 20, answer["upload"])
            self.assertEqual(run("update_dense", **more)["received"], size)
            read = run("read_dense", offset=0, size=size)
            self.assertEqual(read["values"].tobytes(), self.new.tobytes())

    def test_weights_that_are_not_finite_are_refused(self):
        with started(self.first) as run:
            before = predict(run)
            for path, value in (
                ("model/shift", np.float32(np.nan)),
                ("model/scale", np.full([4, 3], np.inf, np.float32)),
                ("model/big", np.array([1, np.nan])),
                ("model/half", np.array([1, -np.inf, 2], ml_dtypes.bfloat16)),
            ):
                values = self.layout.filled(
                    {**self.layout.values(self.new), path: value}
                )
                with self.refused(f"dense weights must be finite.*{path}"):
                    self.send(run, values, 40)
                with self.refused(f"dense weights must be finite.*{path}"):
                    run("update_dense", **piece(values, is_last=True))
            self.assert_same(predict(run), before)
            state = run("update_dense", **piece())
            self.assertEqual((state["dense_step"], state["step"]), (100, 100))
            # What the refused request sent is not continued.
            one = run("update_dense", **piece(self.old[:40]))
            with self.refused("dense weights must be finite"):
                run("update_dense", **piece(values, is_last=True))
            with self.refused("another upload"):
                run("update_dense", **piece(self.old[40:], 40, one["upload"], True))

    def test_the_rules_of_rows_hold(self):
        other = Lineage((Branch("other"),))
        branch = Lineage((*_LINEAGE.branches, Branch("1.b", 110)))
        with started(self.first) as run:
            for reason, sender in (
                ("the rows are of another lineage", {"lineage": other}),
                ("the model was loaded again since", {"token": 5}),
                ("steps must be from 0 to", {"newest": -1}),
                ("`step` must not be above `newest`", {"step": 7, "newest": 6}),
                ("the served rows are of a later checkpoint", {"newest": 99}),
            ):
                with self.refused(reason):
                    run("update_dense", **piece(self.new[:5], **sender))
            with self.refused("values must be inside the vector"):
                run("update_dense", **piece(self.new[:5], self.layout.size - 4, 1))
            with self.refused("values must be inside the vector"):
                run("update_dense", **piece(self.new[:5], -1, 1))
            # The first piece of dense weights is not served, so it counts for nothing.
            run("update_dense", **piece(self.new[:5], newest=300))
            self.send(run, self.new, 40, newest=110)
            self.send(run, self.new, 40, newest=130, lineage=branch)
            with self.refused("the rows are of another lineage"):
                self.send(run, self.new, 40, newest=140)

    def test_the_way_back_is_open_to_the_job_that_asks(self):
        branch = Lineage((*_LINEAGE.branches, Branch("1.b", 110)))
        newer = Lineage((*_LINEAGE.branches, Branch("2.c", 105)))
        with started(self.first) as run:

            def back(lineage, newest, confirm=True, token=0):
                return run(
                    "roll_back",
                    lineage=str(lineage),
                    newest=newest,
                    confirm=confirm,
                    token=token,
                )

            answer = self.send(run, self.new, 40, newest=200, step=200)
            self.assertEqual(answer["step"], 200)
            with self.refused("the served rows are of a later checkpoint"):
                self.send(run, self.old, 40, newest=150)
            self.assertEqual(
                back(_LINEAGE, 150, confirm=False),
                {"before": 200, "step": 200, "token": answer["token"]},
            )
            with self.refused("the served rows are of a later checkpoint"):
                self.send(run, self.old, 40, newest=150)
            begun = back(_LINEAGE, 150)
            self.assertEqual((begun["before"], begun["step"]), (200, 0))
            self.assertGreater(begun["token"], answer["token"])
            with self.refused("the model was loaded again since"):
                self.send(run, self.new, 40, newest=210, token=answer["token"])
            state = run("update_dense", **piece(newest=0))
            self.assertEqual((state["step"], state["dense_step"]), (0, 0))
            answer = self.send(
                run, self.old, 40, newest=150, step=150, token=begun["token"]
            )
            self.assertEqual((answer["step"], answer["dense_step"]), (150, 150))
            read = run("read_dense", offset=0, size=self.layout.size)
            self.assertEqual(read["values"].tobytes(), self.old.tobytes())
            # A branch from before the served step.
            with self.refused("the served rows are ahead of where the job went back"):
                self.send(run, self.new, 40, newest=160, lineage=branch)
            back(branch, 120)
            self.send(run, self.new, 40, newest=120, lineage=branch, step=120)
            # A newer branch, from before the served one had a checkpoint.
            back(newer, 108)
            self.send(run, self.new, 40, newest=108, lineage=newer, step=108)
            for lineage in (
                branch,
                _LINEAGE,
                Lineage((Branch("other"), Branch("9.d", 1))),
                Lineage(),
            ):
                with self.assertRaisesRegex(
                    tf.errors.InvalidArgumentError,
                    "roll_back: only the job of the served values, on a newer branch",
                ):
                    back(lineage, 100)
            self.assertEqual(run("update_dense", **piece(lineage=newer))["step"], 108)

    def test_rows_are_read_as_they_are_served(self):
        ids = small_network.feature_ids("user", [7, 9, 8, 10])
        with started(self.first) as run:

            def update(rows, **sender):
                request = piece(**sender)
                names = ("step", "token", "lineage", "newest")
                given = {name: request[name] for name in names}
                return run(
                    "update_embeddings", table="user", ids=ids, rows=rows, **given
                )

            read = run("read_embeddings", table="user", ids=ids)
            self.assertAllEqual(
                read["rows"], [[1, 2, 3], [0, 0, 0], [0, 0, 1], [0, 0, 0]]
            )
            self.assertAllEqual(read["has_row"], [True, False, True, False])
            self.assertEqual(read["step"], 100)
            before = predict(run)
            update([[4, 5, 6], [7, 8, 9], [0, 0, 0], [0, 0, 0]], newest=200)
            now = run("read_embeddings", table="user", ids=ids)
            self.assertAllEqual(now["has_row"], [True, True, False, False])
            self.assertAllEqual(now["rows"][1], [7, 8, 9])
            listed = [
                run("list_embeddings", table="user", part=i, parts=3)["ids"]
                for i in range(3)
            ]
            self.assertCountEqual(np.concatenate(listed), ids[:2])
            other = run("list_embeddings", table="item", part=0, parts=1)["ids"]
            self.assertAllEqual(other, small_network.feature_ids("item", [1]))
            # What was read brings the former rows back.
            token = run(
                "roll_back", lineage=str(_LINEAGE), newest=100, confirm=True, token=0
            )["token"]
            done = update(read["rows"], newest=100, step=100, token=token)
            self.assertEqual(done["step"], 100)
            self.assert_same(predict(run), before)
            listed = run("list_embeddings", table="user", part=0, parts=1)["ids"]
            self.assertCountEqual(listed, ids[[0, 2]])
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError, "read_embeddings: unknown table"
            ):
                run("read_embeddings", table="x", ids=ids)


class ModelTest(testing.TestCase):
    def test_a_variable_that_is_sharded_is_one_in_the_vector(self):
        class Sharded(base.Model):
            def __init__(self):
                super().__init__()
                parts = [tf.Variable(tf.ones([n, 3], tf.bfloat16)) for n in (2, 1)]
                parts[1].assign([[3, 4, 5]])
                self.rows = sharded_variable.ShardedVariable(parts)

            def model_fn(self, inputs, mode):
                total = tf.reduce_sum(inputs.concat(), axis=1)
                rows = tf.nn.embedding_lookup(self.rows, [0, 1, 2])
                total += tf.reduce_sum(tf.cast(rows, tf.float32))
                return base.EstimatorSpec(mode=mode, predictions={"click": total})

        with tempfile.TemporaryDirectory() as folder:
            path = export(Sharded(), folder)
            content = metadata.read(path)["dense"]
            layout = flat_layout.FlatLayout.from_json(content)
            self.assertEqual(
                content["variables"],
                {"model/rows": {"offset": 0, "shape": [3, 3], "dtype": "bfloat16"}},
            )
            with started(path) as run:
                before = predict(run)["click"]
                rows = np.array([[1, 1, 1], [1, 1, 1], [3, 4, 7]], ml_dtypes.bfloat16)
                values = layout.filled({"model/rows": rows})
                run("update_dense", **piece(values, is_last=True))
                self.assertAllClose(predict(run)["click"], before + 2)

    def test_a_model_that_writes_a_dense_variable_is_refused(self):
        class Counting(base.Model):
            def __init__(self):
                super().__init__()
                self.calls = tf.Variable(0.0, trainable=False)

            def model_fn(self, inputs, mode):
                self.calls.assign_add(1.0)
                total = tf.reduce_sum(inputs.concat(), axis=1)
                return base.EstimatorSpec(mode=mode, predictions={"click": total})

        with (
            tempfile.TemporaryDirectory() as folder,
            self.assertRaisesRegex(
                errors.ExportError,
                "Signature `serving_default`: The dense variable `model/calls` is an "
                "input of the node .* of op AssignAddVariableOp, which may change it",
            ),
        ):
            export(Counting(), folder)


_PROGRAM = """
import json, pathlib, pickle, sys, threading
sys.modules["monolith_tf"] = None
import tensorflow.compat.v1 as tf

job = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
(asked, fetches), *updates = job["requests"]
with tf.Session(graph=tf.Graph()) as session:
    tf.saved_model.load(session, ["serve"], job["model"])
    answer = session.make_callable(list(fetches.values()), list(asked))

    def ask():
        return tuple(value.tobytes() for value in answer(*asked.values()))

    known = []
    for feeds, outputs in updates:
        session.run(outputs, feeds)
        known.append(ask())
    counts, over, lock = [0, 0, 0], threading.Event(), threading.Lock()

    def count():
        mine = [0, 0, 0]
        while not over.is_set():
            found = ask()
            mine[known.index(found) if found in known else 2] += 1
        with lock:
            for place, number in enumerate(mine):
                counts[place] += number

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        feeds, outputs = updates[number % 2]
        session.run(outputs["dense_step"], feeds)
    over.set()
    for thread in threads:
        thread.join()
print(json.dumps({"counts": counts, "differ": known[0] != known[1]}))
"""


def test_no_answer_mixes_two_versions(tmp_path):
    model = Dense()
    path = export(model, tmp_path)
    vectors = []
    for seed in (1, 2):
        changed(model, seed)
        vectors.append(vector(model, path))
    columns = {
        "user": np.array([7, 9, 8], np.int64),
        "history": np.array([[1, 0], [0, 0], [5, 1]], np.int64),
        "history_length": np.array([1, 0, 2], np.int64),
        "item": np.array([1, 2, 1], np.int64),
        "price": np.array([1, 2, 3], np.float32),
    }
    requests = [("serving_default", columns)]
    for values in vectors:
        inputs = piece(values, is_last=True)
        requests.append(("update_dense", {k: np.array(v) for k, v in inputs.items()}))
    job = tmp_path / "job"
    job.write_bytes(clean_process.make_job(path, requests))
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, "-P", str(program), str(job)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    old, new, mixed = found["counts"]
    assert found["differ"]
    assert mixed == 0
    assert min(old, new) > 10, (old, new)


if __name__ == "__main__":
    tf.test.main()
