"""Rows of a served model change in place, through TensorFlow's C API."""

import contextlib
import pathlib
import tempfile
import threading

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.frozen.store import RowChunk
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.export import metadata
from monolith_tf.export import saved_model
from monolith_tf.export import spec as spec_lib
from monolith_tf.lineage import Branch
from monolith_tf.lineage import Lineage
from monolith_tf.testing import c_session
from monolith_tf.testing import small_network

_KEY = "update_embeddings"
_SPARE = 4
_LINEAGE = Lineage((Branch("mine"),))


def _update(table, values, rows, step=0, token=0):
    return (
        _KEY,
        {
            "table": np.array(table.encode(), object),
            "ids": small_network.feature_ids(table, values),
            "rows": np.array(rows, np.float32),
            "step": np.array(step, np.int64),
            "token": np.array(token, np.int64),
            "lineage": np.array(str(_LINEAGE).encode(), object),
            "newest": np.array(1000, np.int64),
        },
    )


def _predict(user, item):
    return (
        "serving_default",
        {
            "user": np.array(user, np.int64),
            "history": np.zeros([len(user), 0], np.int64),
            "history_length": np.zeros([len(user)], np.int64),
            "item": np.array(item, np.int64),
            "price": np.zeros([len(user)], np.float32),
        },
    )


class UpdatesTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.weights = {"user": {7: [1, 2, 3], 8: [0, 0, 1]}, "item": {1: [1, 1, 1]}}

    def export(self, tables=()):
        chunks = small_network.rows(self.weights)
        return saved_model.export(
            small_network.make(tables),
            small_network.COLUMNS,
            self.folder,
            rows=lambda: chunks,
            spec=spec_lib.ExportSpec(spare_rows=_SPARE),
            origin=saved_model.Origin(lineage=_LINEAGE, step=100),
        )

    @contextlib.contextmanager
    def started(self, path):
        """Yields a function that answers requests as one start of a server."""
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(path))

            def run(request):
                signature = meta_graph.signature_def[request[0]]
                return session.run(
                    {name: info.name for name, info in signature.outputs.items()},
                    {signature.inputs[n].name: v for n, v in request[1].items()},
                )

            yield run

    def test_a_server_takes_rows(self):
        path = self.export()
        self.assertEqual(
            metadata.read(path)["groups"],
            [{"rows": 3, "dropped_rows": 0, "capacity": 7}],
        )
        asked = _predict([7, 9, 10, 8], [1, 1, 2, 1])
        new = _update("user", [9, 7, 9], [[5] * 3, [0, 0, 9], [4] * 3])
        gone = _update("user", [8, 10], np.zeros([2, 3]), step=120)
        answers = c_session.ask(
            path,
            [
                _update("user", [], np.zeros([0, 3])),
                asked,
                new,
                new,
                asked,
                gone,
                _update("item", [2], [[1, 2, 3]], step=110),
                asked,
            ],
        )

        token = answers[0]["token"]
        self.assertGreater(token, 0)

        def state(inserted, rows, step):
            counts = {"inserted": inserted, "rows": rows, "capacity": 7}
            return {**counts, "step": step, "token": token}

        self.assertEqual(answers[0], state(0, 3, 100))
        self.assertAllClose(answers[1]["sums"][:, 0], [9, 3, 0, 4])
        self.assertEqual(answers[2], state(1, 4, 100))
        self.assertEqual(answers[3], state(0, 4, 100))  # Sent again.
        self.assertAllClose(answers[4]["sums"][:, 0], [12, 15, 0, 4])
        self.assertEqual(answers[5], state(0, 3, 120))  # Zeros remove a row.
        self.assertEqual(answers[6], state(1, 4, 120))  # Steps do not go back.
        self.assertAllClose(answers[7]["sums"][:, 0], [12, 15, 6, 3])

    def test_a_table_of_64_bits_takes_integers_as_they_stand(self):
        tables = [
            TableSpec(name="user", slot=1, dim=3, large_integers="exact"),
            TableSpec(name="item", slot=2, dim=3),
        ]
        # The second looks like an id of the other table, the last like none.
        values = np.array([2**63 - 1, 2 << 48, -(2**63), -1], np.int64)
        weights = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
        chunks = [RowChunk(values[:2], weights[:2], "user")]
        path = saved_model.export(
            small_network.make(tables),
            small_network.COLUMNS,
            self.folder,
            rows=lambda: chunks,
            spec=spec_lib.ExportSpec(spare_rows=_SPARE),
            origin=saved_model.Origin(lineage=_LINEAGE),
        )
        described = metadata.read(path)["tables"]
        kinds = {name: table["large_integers"] for name, table in described.items()}
        self.assertEqual(kinds, {"user": "exact", "item": None})
        update = _update("user", [], weights[1:])
        update[1].update(table=np.array(b"user/exact", object), ids=values[1:])
        asked = _predict([*values, 0, 5], [-1] * 6)
        before, done, after = c_session.ask(path, [asked, update, asked])
        self.assertAllClose(before["sums"][:, 0], [6, 15, 0, 0, 0, 0])
        self.assertEqual(done["inserted"], 2)
        self.assertAllClose(after["sums"][:, 0], [*weights.sum(axis=1), 0, 0])
        wrong = "unknown table; the model has.*user/exact"
        with (
            self.started(path) as run,
            self.assertRaisesRegex(tf.errors.InvalidArgumentError, wrong),
        ):
            run(_update("user", [5], [[1, 1, 1]]))

    def test_an_export_of_before_refuses_integers_as_they_stand(self):
        path = self.export()
        update = _update("user", [7], [[1, 1, 1]])
        update[1]["table"] = np.array(b"user/exact", object)
        with (
            self.started(path) as run,
            self.assertRaisesRegex(tf.errors.InvalidArgumentError, "unknown table"),
        ):
            run(update)

    def test_a_request_with_the_token_of_an_earlier_start_is_refused(self):
        path = self.export()
        asked = _predict([7], [1])
        with self.started(path) as run:
            token = run(_update("user", [9], [[1, 1, 1]]))["token"]
            again = _update("user", [7], [[5, 5, 5]], step=110, token=token)
            self.assertEqual(run(again)["step"], 110)
        with self.started(path) as run:
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError,
                "update_embeddings: the model was loaded again since it gave the token",
            ):
                run(again)
            self.assertAllClose(run(asked)["sums"][:, 0], [9])
            answer = run(_update("user", [], np.zeros([0, 3])))
            self.assertEqual(answer["step"], 100)
            self.assertGreater(answer["token"], token)

    def test_what_is_refused_changes_nothing(self):
        path = self.export()
        wrong_width = _update("user", [9], [[1, 2, 3, 4]])
        foreign = _update("user", [9], [[1, 2, 3]])
        foreign[1]["table"] = np.array(b"item", object)
        asked = _predict([7], [1])
        answers = c_session.ask(
            path,
            [
                _update("user", [20, 21, 22, 23, 24, 7], np.ones([6, 3])),
                ("update_embeddings", {**foreign[1], "table": np.array(b"x", object)}),
                foreign,
                wrong_width,
                asked,
                _update("user", [20, 21, 22, 23], np.ones([4, 3])),
            ],
        )
        for answer, message in zip(
            answers,
            [
                "update_embeddings: capacity is spent",
                "update_embeddings: unknown table; the model has",
                "update_embeddings: an id is not of the table:] [item]",
                "update_embeddings: rows must have shape [n, dim], for n ids. Received "
                "n, dim, and shape:] [1 3 1 4]",
            ],
            strict=False,
        ):
            self.assertIn(message, answer)
        self.assertAllClose(answers[4]["sums"][:, 0], [9])
        self.assertEqual(answers[5]["inserted"], 4)
        self.assertEqual(answers[5]["rows"], answers[5]["capacity"])

    def test_numbers_that_no_training_comes_to_are_refused(self):
        path = self.export()
        nothing = "user", [], np.zeros([0, 3])
        far = _update(*nothing)
        far[1]["newest"] = np.array(1 << 62, np.int64)
        ahead = _update(*nothing, step=1 << 39)
        asked = _predict([7], [1])
        answers = c_session.ask(
            path,
            [
                _update("user", [8, 7], [[1, 1, 1], [1, np.nan, 1]]),
                _update("user", [7], [[np.inf, 0, 0]]),
                _update(*nothing, step=1 << 62),
                _update(*nothing, step=-1),
                far,
                ahead,
                _update(*nothing),
                asked,
            ],
        )
        self.assertIn("rows must be finite. The row of the first", answers[0])
        self.assertIn("rows must be finite", answers[1])
        for answer in answers[2:5]:
            self.assertIn("steps must be from 0 to 2^40", answer)
        self.assertIn("`step` must not be above `newest`", answers[5])
        self.assertEqual(answers[6]["step"], 100)
        self.assertAllClose(answers[7]["sums"][:, 0], [9])

    def test_of_two_senders_the_one_with_the_older_rows_gives_way(self):
        path = self.export()

        def of_checkpoint(newest, value, step=0):
            key, inputs = _update("user", [7], [[value, 0, 0]], step=step)
            return key, {**inputs, "newest": np.array(newest, np.int64)}

        asked = _predict([7], [1])
        answers = c_session.ask(
            path,
            [
                of_checkpoint(150, 2.0),
                of_checkpoint(200, 4.0),
                of_checkpoint(150, 2.0, step=150),
                of_checkpoint(200, 4.0, step=200),
                asked,
            ],
        )
        self.assertIn("the served rows are of a later checkpoint", answers[2])
        self.assertEqual(answers[3]["step"], 200)
        self.assertAllClose(answers[4]["sums"][:, 0], [7])  # 4, and the item's 3.

    def test_who_asks_only_or_is_refused_moves_no_lineage(self):
        path = self.export()
        branched = Lineage((*_LINEAGE.branches, Branch("later", 100)))

        def of_branch(request):
            text = np.array(str(branched).encode(), object)
            return request[0], {**request[1], "lineage": text}

        full = _update("user", [20, 21, 22, 23, 24], np.ones([5, 3]))
        answers = c_session.ask(
            path,
            [
                of_branch(_update("user", [], np.zeros([0, 3]))),
                of_branch(full),
                _update("user", [8], [[1, 1, 1]]),
            ],
        )
        self.assertEqual(answers[0]["step"], 100)
        self.assertIn("capacity is spent", answers[1])
        self.assertEqual(answers[2]["rows"], 3)

    def test_tables_of_different_layouts_and_compressors(self):
        tables = [
            TableSpec(name="user", slot=1, dim=3, compressor="fp16"),
            TableSpec(name="item", slot=2, dim=3, compressor="int8", int8_range=2.0),
        ]
        path = self.export(tables)
        answers = c_session.ask(
            path,
            [
                _update("user", [9], [[0.1, 0.2, 0.3]]),
                _update("item", [5], [[0.5, 2.0, -0.7]]),
                _predict([9, 0], [0, 5]),
            ],
        )
        self.assertEqual(answers[0]["rows"], 3)
        self.assertEqual(answers[1]["rows"], 2)
        halves = np.array([0.1, 0.2, 0.3], np.float16).astype(np.float32).sum()
        eighths = np.rint(np.array([0.5, 2.0, -0.7]) / 2 * 127).sum() * 2 / 127
        sums = answers[2]["sums"][:, 0]
        self.assertAllClose(sums, [halves, eighths], rtol=1e-6, atol=1e-6)

    def test_numbers_beyond_what_a_compressor_holds_are_refused(self):
        tables = [
            TableSpec(name="user", slot=1, dim=3, compressor="fp16"),
            TableSpec(
                name="item",
                slot=2,
                slices=(
                    SliceSpec(name="a", dim=1),
                    SliceSpec(name="b", dim=2, compressor="int8", int8_range=0.5),
                ),
            ),
        ]
        path = self.export(tables)
        asked = _predict([7, 9], [0, 0])
        rounded = np.float32(0.5 * 127.4 / 127)  # To the largest int8 value.
        before, *refused, after, half, byte = c_session.ask(
            path,
            [
                asked,
                _update("user", [9, 7], [[1, 1, 1], [1, 70000, 1]]),
                _update("user", [7], [[0, 0, -1e6]]),
                _update("item", [1], [[0, 0.6, 0]]),
                _update("item", [1], [[0, 0, -100]]),
                asked,
                _update("user", [7], [[65504, 0, 0]]),
                _update("item", [1], [[3e38, 0.5, -rounded]]),
            ],
        )
        for answer in refused:
            self.assertIn(
                "update_embeddings: rows must be within what the `compressor` of "
                "their table holds. Row, column and value of the first that is not:",
                answer,
            )
        self.assertIn("[1 1]] [70000]", refused[0])
        self.assertAllClose(after["sums"], before["sums"])
        self.assertEqual(half["inserted"], 0)
        self.assertEqual(byte["inserted"], 0)

    def test_requests_at_once_never_share_a_spare_row(self):
        path = self.export()
        with self.started(path) as run:
            threads = [
                threading.Thread(
                    target=run, args=[_update("user", [30 + i], [[i + 1, 0, 0]])]
                )
                for i in range(_SPARE)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            answer = run(_predict([30, 31, 32, 33], [0] * 4))
        self.assertAllClose(answer["sums"][:, 0], [1, 2, 3, 4])
