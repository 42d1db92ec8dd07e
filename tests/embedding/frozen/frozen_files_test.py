"""Rows go to a SavedModel's files chunk by chunk."""

import os
from unittest import mock

import numpy as np
import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf import testing
from monolith_tf.embedding.frozen import files as frozen_files
from monolith_tf.embedding.frozen import survey as frozen_survey
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.frozen.store import RowChunk
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec

_TABLES = (
    TableSpec(name="user", slot=1, dim=3),
    TableSpec(
        name="item",
        slot=2,
        slices=(
            SliceSpec(name="bias", dim=1, compressor="fp16"),
            SliceSpec(name="vec", dim=2, compressor="int8", int8_range=2.0),
        ),
    ),
    TableSpec(name="city", slot=3, dim=5),
)
_COLUMNS = tuple(ColumnSpec(feature=t.name, table=t.name) for t in _TABLES)


class _Module(tf.Module):
    def __init__(self, store):
        super().__init__()
        self.tables = store
        self.dense = tf.Variable([1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)] * 3)
    def serve(self, user, item, city):
        ids = {"user": user, "item": item, "city": city}
        pulled = self.tables.lookup(ids)
        embeddings = self.tables.combine(pulled)
        return {
            name: tf.concat(list(slices.values()), axis=1)
            for name, slices in embeddings.items()
        }


def _ids(slot, numbers):
    return (slot << 48) + np.asarray(numbers, np.int64)


def _integer_ids(slot, integers):
    hashed = ids_lib.from_integers(tf.constant(integers, tf.int64))
    return ids_lib.with_slot(slot, hashed).numpy()


class FrozenFilesTest(testing.TestCase):
    def chunks(self):
        user = self.rng.normal(size=(50, 3)).astype("f4")
        user[::10] = 0.0
        item = self.rng.uniform(-2, 2, size=(20, 3)).astype("f4")
        item[3] = [0, 0.001, -0.001]  # Zero as it is stored.
        return [
            (_ids(1, range(30)), user[:30]),
            (_ids(2, range(20)), item),
            (_ids(1, range(30, 50)), user[30:]),
        ]

    def test_what_is_written_is_read_as_if_it_had_been_in_memory(self):
        chunks = self.chunks()
        store = FrozenStore(_TABLES, _COLUMNS)
        directory = os.path.join(self.get_temp_dir(), self._testMethodName)
        module = _Module(store)
        tf.saved_model.save(module, directory, signatures=module.serve)
        prefix = os.path.join(directory, "variables", "variables")
        wanted = np.concatenate([_ids(1, [7, 10, 49, 99]), _ids(2, [3, 4])])
        counted = frozen_survey.survey(store, chunks, {None: wanted})
        groups = [frozen.group for frozen in store.groups]
        self.assertEqual([counted.rows(group) for group in groups], [45, 19, 0])
        self.assertEqual([counted.dropped(group) for group in groups], [5, 1, 0])
        found = {i: row for ids, rows, _ in counted.wanted for i, row in zip(ids, rows)}  # noqa: B905
        self.assertCountEqual(found, [i for i in wanted if i != _ids(1, 99)])
        self.assertAllEqual(found[_ids(1, 49)], chunks[2][1][19])
        with mock.patch.object(frozen_files, "CHUNK_BYTES", 100):
            frozen_files.write(
                store, prefix, "tables", lambda: chunks, counted, spare_rows=4
            )
        files = os.listdir(os.path.dirname(prefix))
        self.assertGreater(len(files), 5)
        # Of the empty store's files none is left.
        pattern = rf"variables\.(index|data-\d+-of-{len(files) - 1:05d})"
        for file in files:
            self.assertRegex(file, f"^{pattern}$")
        reader = tf.train.load_checkpoint(prefix)
        shapes = {
            name.replace("/.ATTRIBUTES/", "/"): shape
            for name, shape in reader.get_variable_to_shape_map().items()
            if name.startswith("tables/")
        }
        self.assertEqual(
            shapes,
            {
                "tables/groups/0/index/table/table-keys": [45],
                "tables/groups/0/index/table/table-values": [45],
                "tables/groups/0/slices/0/VARIABLE_VALUE": [50, 3],
                "tables/groups/1/index/table/table-keys": [19],
                "tables/groups/1/index/table/table-values": [19],
                "tables/groups/1/slices/0/VARIABLE_VALUE": [24, 1],
                "tables/groups/1/slices/1/VARIABLE_VALUE": [24, 2],
                "tables/groups/2/index/table/table-keys": [0],
                "tables/groups/2/index/table/table-values": [0],
                "tables/groups/2/slices/0/VARIABLE_VALUE": [5, 5],
            },
        )
        filled = FrozenStore(_TABLES, _COLUMNS)
        filled.fill(chunks)
        served = tf.saved_model.load(directory)
        self.assertAllEqual(served.dense, [1.0, 2.0])
        asked = [tf.constant(_ids(slot, range(60))) for slot in (1, 2, 3)]
        in_memory = _Module(filled)
        expected = in_memory.serve(*asked)
        answers = served.signatures["serving_default"](
            **dict(zip(("user", "item", "city"), asked, strict=True))
        )
        for name, value in expected.items():
            self.assertAllEqual(answers[name], value)
        self.assertAllEqual(answers["user"][30:50], chunks[2][1])

    def test_rows_that_come_or_go_in_between_do_no_harm(self):
        chunks = self.chunks()
        for later in (chunks[:2], [*chunks, (_ids(1, [70]), np.ones([1, 3], "f4"))]):
            store = FrozenStore(_TABLES, _COLUMNS)
            counted = frozen_survey.survey(store, chunks, {})
            directory = os.path.join(self.get_temp_dir(), f"some_{len(later)}")
            module = _Module(store)
            tf.saved_model.save(module, directory, signatures=module.serve)
            prefix = os.path.join(directory, "variables", "variables")
            frozen_files.write(store, prefix, "tables", lambda c=later: c, counted)
            served = tf.saved_model.load(directory).signatures["serving_default"]
            asked = tf.constant(_ids(1, [1, 31, 70]))
            answer = served(user=asked, item=asked, city=asked)["user"]
            self.assertAllEqual(answer[0], chunks[0][1][1])
            self.assertAllEqual(answer[2], [0, 0, 0])
            there = chunks[2][1][1] if len(later) == 4 else [0, 0, 0]
            self.assertAllEqual(answer[1], there)

    def test_rows_of_64_bits_that_go_in_between_do_no_harm(self):
        tables = [
            TableSpec(name=t.name, slot=t.slot, dim=3, large_integers="exact")
            for t in _TABLES
        ]
        ids = np.array([-1, -2, 2**63 - 1, -(2**63)], np.int64)
        weights = np.arange(1, 13, dtype="f4").reshape(4, 3)
        chunk = RowChunk(ids, weights, "item")
        for number in (4, 2, 0):
            store = FrozenStore(tables, _COLUMNS)
            counted = frozen_survey.survey(store, [chunk], {"item": ids[1:2]})
            self.assertAllEqual(counted.wanted[0].weights, weights[1:2])
            self.assertEqual(counted.ranges(["user", "item"]), {})
            directory = os.path.join(self.get_temp_dir(), f"exact_{number}")
            module = _Module(store)
            tf.saved_model.save(module, directory, signatures=module.serve)
            prefix = os.path.join(directory, "variables", "variables")
            later = [RowChunk(ids[:number], weights[:number], "item")]
            frozen_files.write(store, prefix, "tables", lambda c=later: c, counted)
            served = tf.saved_model.load(directory).signatures["serving_default"]
            asked = tf.constant([*ids, 0, 7], tf.int64)
            answer = served(user=asked, item=asked, city=asked)
            there = np.concatenate([weights[:number], np.zeros([6 - number, 3])])
            self.assertAllEqual(answer["item"], there)
            self.assertAllEqual(answer["user"], np.zeros([6, 3]))

    def test_rows_of_small_integers_are_written_by_place(self):
        tables = [
            TableSpec(name=t.name, slot=t.slot, dim=3, large_integers="hash")
            for t in _TABLES
        ]
        user, item = self.rng.normal(size=(2, 6, 3)).astype("f4")
        user[1] = 0.0
        chunks = [
            (_integer_ids(1, [5, 0, 3]), user[:3]),
            (_integer_ids(2, [2, -1, 2**60]), item[:3]),
            (_integer_ids(1, [7, 4, 6]), user[3:]),
        ]
        integers = ["user", "item", "city"]
        counted = frozen_survey.survey(
            FrozenStore(tables, _COLUMNS, integers=integers), chunks, {}
        )
        self.assertEqual(counted.tables["user"], (5, 1, 8, 0))
        self.assertEqual(counted.tables["city"], (0, 0, 0, 0))
        ranges = counted.ranges(integers)
        self.assertEqual(ranges, {"user": 8, "city": 0})
        there = dict(zip([5, 3, 7, 4, 6], user[[0, 2, 3, 4, 5]], strict=True))
        come = (_integer_ids(1, [8, 2, 1]), np.ones([3, 3], "f4"))
        few = {5: user[0], 3: user[2]}
        for case, (later, expected) in enumerate(
            [
                (chunks, there),
                (chunks[:2], few),
                # There is room for as many rows as were counted.
                ([*chunks[:2], come], {**few, 2: [1] * 3, 1: [1] * 3}),
                ([*chunks, come], there),
            ]
        ):
            store = FrozenStore(tables, _COLUMNS, integers=integers, ranges=ranges)
            directory = os.path.join(self.get_temp_dir(), f"places_{case}")
            module = _Module(store)
            tf.saved_model.save(module, directory, signatures=module.serve)
            prefix = os.path.join(directory, "variables", "variables")
            with mock.patch.object(frozen_files, "CHUNK_BYTES", 100):
                frozen_files.write(store, prefix, "tables", lambda c=later: c, counted)
            served = tf.saved_model.load(directory).signatures["serving_default"]
            asked = [*range(12), -1, 2**60, 2**50]
            answer = served(
                user=tf.constant(_integer_ids(1, asked)),
                item=tf.constant(_integer_ids(2, asked)),
                city=tf.constant(_integer_ids(3, asked)),
            )
            rows = [expected.get(value, [0, 0, 0]) for value in asked]
            self.assertAllEqual(answer["user"], rows)
            items = {2: item[0], -1: item[1], 2**60: item[2]}
            rows = [items.get(value, [0, 0, 0]) for value in asked]
            self.assertAllEqual(answer["item"], rows)
            self.assertAllEqual(answer["city"], np.zeros([len(asked), 3]))
            shapes = {
                tuple(shape)
                for name, shape in tf.train.list_variables(prefix)
                if "/table-keys" in name
            }
            self.assertEqual(shapes, {(3,)})  # Of items alone.
