"""Tests of saving and restoring a store, and of what its files may suffer."""

import json
import os
import re
import zlib
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.saved import read as saved_tables
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.saved import write as checkpoint
from monolith_tf.embedding.shard.shard_rows import ShardRows
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_ADAM = optimizer_spec.AdamSpec(learning_rate=0.1)
_USER = TableSpec(name="user", slot=1, dim=3, optimizer=_ADAM)
_ITEM = TableSpec(
    name="item",
    slot=2,
    admit_after=2,
    expire_after_steps=100,
    expire_after_days=1.0,
    slices=(
        SliceSpec(name="bias", dim=1, optimizer=optimizer_spec.FtrlSpec()),
        SliceSpec(name="vec", dim=2),
    ),
)


class _Runs:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def _store(*tables, num_shards=1, seed=3, capacity=64):
    tables = tables or (_USER, _ITEM)
    return EmbeddingStore(
        tables,
        [ColumnSpec(feature=table.name, table=table.name) for table in tables],
        seed=seed,
        placement=Placement(num_shards=num_shards),
        capacity=capacity,
    )


def _ids(store, **values):
    return {
        table.name: tf.constant(values[table.name], tf.int64) + (table.slot << 48)
        for table in store.tables
        if table.name in values
    }


def _train(store, step):
    rng = np.random.default_rng(step)
    ids = _ids(store, **{t.name: rng.integers(0, 40, 16) for t in store.tables})
    pulled = store.lookup(ids, training=True, step=step, now_secs=60 * step)
    with tf.GradientTape() as tape:
        tape.watch(pulled.rows)
        losses = [
            tf.reduce_sum(values * rng.normal(size=values.shape).astype(np.float32))
            for slices in store.combine(pulled).values()
            for values in slices.values()
        ]
        loss = tf.add_n(losses)
    store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), step)


def _read(store, **values):
    pulled = store.lookup(_ids(store, **values), training=False)
    return {
        f"{feature}/{name}": tensor.numpy()
        for feature, slices in store.combine(pulled).items()
        for name, tensor in slices.items()
    }


class CheckpointTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = os.path.join(self.get_temp_dir(), self._testMethodName)

    def assert_equal_rows(self, store, other):
        everything = {table.name: np.arange(40) for table in other.tables}
        expected = _read(other, **everything)
        for key, value in _read(store, **everything).items():
            self.assertAllEqual(value, expected[key], msg=key)

    @parameterized.parameters((1, 1), (3, 2), (2, 5))
    def test_restored_training_goes_on_bit_for_bit(self, num_shards, new_num_shards):
        undisturbed = _store()
        store = _store(num_shards=num_shards)
        for step in range(6):
            _train(undisturbed, step)
            _train(store, step)
        store.save(self.directory, step=6, now_secs=0)
        resumed = _store(num_shards=new_num_shards)
        _train(resumed, 77)  # Must leave no trace.
        report = resumed.restore(self.directory)
        self.assertEqual(report.step, 6)
        self.assertEqual((report.new_tables, report.dropped_tables), ((), ()))
        for step in range(6, 9):
            _train(undisturbed, step)
            _train(resumed, step)
        self.assert_equal_rows(resumed, undisturbed)
        for name, value in undisturbed.counters().items():
            self.assertAllEqual(resumed.counters()[name], value, msg=name)
        # Nothing is 100 steps old yet, and everything is a day old.
        self.assertEqual(
            resumed.maintain(9, 3600).expired, undisturbed.maintain(9, 3600).expired
        )
        self.assertEqual(
            resumed.maintain(9, 90_000).expired, undisturbed.maintain(9, 90_000).expired
        )

    def test_chunks_bound_what_is_held(self):
        store = _store(_USER)
        _train(store, 0)
        with mock.patch.object(checkpoint, "CHUNK_BYTES", 200):
            self.assertLess(checkpoint.chunk_rows(store.groups[0]), 6)
            manifest = store.save(self.directory)
        chunks = list(checkpoint_files.read_rows(self.directory, manifest["groups"][0]))
        self.assertGreater(len(chunks), 2)
        resumed = _store(_USER, num_shards=2)
        resumed.restore(self.directory)
        self.assert_equal_rows(resumed, store)

    def test_only_rows_in_use_are_written(self):
        store = _store(_USER, capacity=1_000_000)
        _train(store, 0)
        manifest = store.save(self.directory)
        (file,) = checkpoint_files.all_files(manifest)
        self.assertEqual(file["rows"], store.describe()[0].rows)
        self.assertLess(file["bytes"], 5_000)

    def test_files_are_read_without_tensorflow(self):
        store = _store(_USER)
        store.lookup(_ids(store, user=[7, 8]), training=True)
        manifest = store.save(self.directory, step=5, now_secs=9)
        self.assertEqual(manifest, checkpoint_files.read_manifest(self.directory))
        (group,) = manifest["groups"]
        path = os.path.join(self.directory, group["rows_files"][0]["name"])
        with open(path, "rb") as file:
            ids, weights, state = (np.load(file) for _ in range(3))
        self.assertAllEqual(ids, (1 << 48) + np.array([7, 8]))
        self.assertAllEqual(weights, _read(store, user=[7, 8])["user/vec"])
        # Adam's m and v, and its two powers.
        self.assertAllEqual(state, [[0.0] * 6 + [1.0] * 2] * 2)
        self.assertEqual((manifest["step"], manifest["secs"]), (5, 9))
        self.assertEqual(manifest["tables"][0]["counters"]["rows"], 2)

    def test_restoring_makes_room(self):
        store = _store(_USER)
        for step in range(3):
            _train(store, step)
        store.save(self.directory)
        small = _store(_USER, capacity=4)
        small.restore(self.directory)
        self.assert_equal_rows(small, store)

    def test_wide_rows_are_restored(self):
        wide = TableSpec(name="user", slot=1, dim=300)
        store = _store(wide)
        _train(store, 0)
        store.save(self.directory)
        other = _store(wide)
        other.restore(self.directory)
        self.assert_equal_rows(other, store)

    def test_rows_of_a_dropped_table_go_to_no_other_table(self):
        slots = {"dropped": 5, "first": 0, "second": 1}
        tables = {n: TableSpec(name=n, slot=s, dim=3) for n, s in slots.items()}
        store = _store(*tables.values())
        _train(store, 0)
        store.save(self.directory)
        other = _store(tables["first"], tables["second"])
        report = other.restore(self.directory)
        self.assertEqual(report.dropped_tables, ("dropped",))
        counts = {n: c["rows"] for n, c in store.table_counters().items()}
        del counts["dropped"]
        self.assertEqual(report.rows, counts)
        self.assertEqual(
            {n: c["rows"] for n, c in other.table_counters().items()}, counts
        )

    def test_aliases_bring_a_table_to_another_name_and_slot(self):
        store = _store()
        _train(store, 0)
        store.save(self.directory)
        member = TableSpec(name="member", slot=9, dim=3, optimizer=_ADAM)
        fresh = TableSpec(name="fresh", slot=3, dim=3)
        other = _store(member, fresh)
        report = other.restore(self.directory, aliases={"user": "member"})
        self.assertEqual(report.new_tables, ("fresh",))
        self.assertEqual(report.dropped_tables, ("item",))
        self.assertEqual(set(report.rows), {"member"})
        self.assertAllEqual(
            _read(other, member=np.arange(40))["member/vec"],
            _read(store, user=np.arange(40))["user/vec"],
        )

    def test_two_checkpoints_fill_one_store(self):
        member = TableSpec(name="member", slot=5, dim=3, optimizer=_ADAM)
        both = _store(_USER, member)
        ids = {"user": np.arange(40), "member": np.arange(40)}
        expected = {}
        for number, table in enumerate((_USER, member)):
            store = _store(table)
            _train(store, number)
            store.save(f"{self.directory}/{number}")
            both.restore(f"{self.directory}/{number}", keep_others=number > 0)
            expected |= _read(store, **ids)
        self.assertAllClose(_read(both, **ids), expected, rtol=0, atol=0)
        both.restore(f"{self.directory}/1")
        self.assertAllEqual(_read(both, **ids)["user/vec"], np.zeros([40, 3]))
        self.assertAllEqual(_read(both, **ids)["member/vec"], expected["member/vec"])

    def test_rows_restored_beside_others_replace_theirs_and_expire(self):
        short = TableSpec(name="t", slot=1, dim=3, expire_after_steps=10)
        ids = {"user": tf.constant([7, 8], tf.int64) + (1 << 48)}
        columns = [ColumnSpec(feature="user", table="t")]
        saved, store = (EmbeddingStore([short], columns, seed=s) for s in (1, 2))
        saved.lookup(ids, training=True, step=0)
        saved.save(self.directory, step=0)
        store.lookup({"user": ids["user"] + 1}, training=True, step=95)
        store.maintain(100)  # Looks again at step 105.
        store.restore(self.directory, keep_others=True)
        rows = [chunk.ids for chunk in store.rows()]
        self.assertAllEqual(np.sort(np.concatenate(rows)) - (1 << 48), [7, 8, 9])
        restored, original = (
            one.combine(one.lookup(ids, training=False))["user"]["vec"]
            for one in (store, saved)
        )
        self.assertAllEqual(restored, original)
        self.assertEqual(store.maintain(101).expired, {"t": 2})
        self.assertEqual(store.table_counters()["t"]["rows"], 1)

    def test_a_file_that_would_run_code_is_refused(self):
        store = _store()
        _train(store, 0)
        manifest = store.save(self.directory)
        (entry,) = manifest["groups"][0]["rows_files"]
        path = os.path.join(self.directory, entry["name"])
        ran = os.path.join(self.get_temp_dir(), "ran")
        with open(path, "wb") as file:
            np.lib.format.write_array(file, np.array([_Runs(ran)], object))
        with open(path, "rb") as file:
            data = file.read()
        entry |= {"bytes": len(data), "crc32": zlib.crc32(data)}
        checkpoint_files.write_manifest(self.directory, manifest)
        with self.assertRaisesRegex(ValueError, "is damaged: Object arrays cannot be"):
            _store().restore(self.directory)
        self.assertFalse(os.path.exists(ran))

    def test_counters_agree_with_the_rows_after_any_restore(self):
        store, saved = _store(_USER, _ITEM), _store(_USER)
        _train(saved, 0)
        saved.save(self.directory)
        for keep_others in (True, False, True):
            _train(store, 1)
            store.restore(self.directory, keep_others=keep_others)
            found = {}
            for chunk in store.rows():
                for slot in chunk.ids >> 48:
                    found[slot] = found.get(slot, 0) + 1
            for table in (_USER, _ITEM):
                counted = store.table_counters()[table.name]
                self.assertEqual(counted["rows"], found.get(table.slot, 0))
                gone = counted["expired"] + counted["evicted"]
                self.assertEqual(counted["inserted"] - gone, counted["rows"])

    def test_slices_come_and_go(self):
        old, kept, new = (
            SliceSpec(name="old", dim=2),
            SliceSpec(name="kept", dim=3, optimizer=_ADAM),
            SliceSpec(name="new", dim=1, initializer=ConstantSpec(value=7.0)),
        )
        store = _store(TableSpec(name="t", slot=1, slices=(old, kept)))
        _train(store, 0)
        store.save(self.directory)
        other = _store(TableSpec(name="t", slot=1, slices=(new, kept)))
        other.restore(self.directory)
        values = _read(other, t=np.arange(40))
        self.assertAllEqual(values["t/kept"], _read(store, t=np.arange(40))["t/kept"])
        has_row = np.any(values["t/kept"] != 0, axis=1)
        self.assertAllEqual(values["t/new"][:, 0], 7.0 * has_row)
        _train(other, 1)  # The optimizer states have their widths.

    def test_optimizer_state_may_start_anew(self):
        store = _store(_USER)
        _train(store, 0)
        store.save(self.directory)
        sgd = TableSpec(
            name="user", slot=1, dim=3, optimizer=optimizer_spec.AdagradSpec()
        )
        other = _store(sgd)
        message = "optimizer='adam'; the spec says 'adagrad'. Restore without"
        with self.assertRaisesRegex(ValueError, message):
            other.restore(self.directory)
        other.restore(self.directory, with_optimizer_state=False)
        self.assert_equal_rows(other, store)
        (shards,) = other._shards.values()
        for chunk in ShardRows(shards[0]).chunks(100):
            self.assertAllEqual(chunk.state, np.full([len(chunk.ids), 3], 0.1, "f4"))

    @parameterized.parameters((1, 3), (3, 1))
    def test_a_sketch_keeps_its_counts(self, num_shards, new_num_shards):
        table = TableSpec(name="t", slot=1, dim=2, admit_after=2, admission="sketch")
        store = _store(table, num_shards=num_shards)
        store.lookup(_ids(store, t=np.arange(20)), training=True)
        store.save(self.directory)
        other = _store(table, num_shards=new_num_shards)
        other.restore(self.directory)
        other.lookup(_ids(other, t=np.arange(10, 30)), training=True)
        self.assertEqual(other.counters()["rows"][0], 10)

    def test_a_policy_set_later_counts_from_the_checkpoint(self):
        store = _store(_USER)
        _train(store, 0)
        store.save(self.directory, step=50)
        expiring = TableSpec(
            name="user", slot=1, dim=3, optimizer=_ADAM, expire_after_steps=10
        )
        other = _store(expiring)
        other.restore(self.directory)
        self.assertEqual(other.maintain(59).expired, {"user": 0})
        self.assertGreater(other.maintain(60).expired["user"], 0)

    def test_restoring_often_takes_no_more_room_than_restoring_once(self):
        directory = os.path.join(self.get_temp_dir(), self._testMethodName)
        saved = _store()
        _train(saved, 0)
        saved.save(directory)
        store = _store(num_shards=2, capacity=64)
        shards = [shard for group in store._shards.values() for shard in group]
        store.restore(directory)
        before = [int(shard.rows.capacity) for shard in shards]
        for _ in range(3):
            store.restore(directory)
        self.assertEqual([int(shard.rows.capacity) for shard in shards], before)


class DamageTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = os.path.join(self.get_temp_dir(), self._testMethodName)
        self.store = _store(num_shards=2)
        _train(self.store, 0)
        self.manifest = self.store.save(self.directory)
        self.file = os.path.join(self.directory, "group-0-shard-1-of-2.rows")

    def assert_restore_fails(self, message):
        store = _store()
        _train(store, 5)
        before = _read(store, user=np.arange(40), item=np.arange(40))
        with self.assertRaisesRegex(ValueError, message):
            store.restore(self.directory)
        after = _read(store, user=np.arange(40), item=np.arange(40))
        for key, value in before.items():
            self.assertAllEqual(after[key], value)

    def test_a_truncated_file_is_named(self):
        os.truncate(self.file, 100)
        self.assert_restore_fails("group-0-shard-1-of-2.rows has 100 bytes; the")

    def test_a_missing_file_is_named(self):
        os.remove(self.file)
        self.assert_restore_fails("group-0-shard-1-of-2.rows is missing; the manifest")

    def test_changed_bytes_are_found(self):
        with open(self.file, "r+b") as file:
            file.seek(-3, os.SEEK_END)
            file.write(b"\x55")
        self.assert_restore_fails("group-0-shard-1-of-2.rows differs from its checksum")

    def test_a_file_changed_while_it_is_read_is_named(self):
        """Though what it holds then can be read, and fits no table."""
        verify = saved_tables.SavedTables.verify

        def then_change(tables):
            verify(tables)
            with open(self.file, "rb") as file:
                data = file.read()
            with open(self.file, "wb") as file:
                file.write(re.sub(rb"\((\d+), (\d+)\)", rb"(\2, \1)", data))

        with mock.patch.object(saved_tables.SavedTables, "verify", then_change):
            store = _store()
            with self.assertRaisesRegex(
                sealed.DamagedError, "shard-1-of-2.rows differs from its checksum"
            ):
                store.restore(self.directory)
        self.assertEmpty([chunk for chunk in store.rows() if len(chunk.ids)])

    def test_a_directory_without_manifest_is_no_checkpoint(self):
        os.remove(os.path.join(self.directory, "manifest.json"))
        self.assert_restore_fails("complete embedding checkpoint. .* no manifest.json")

    def test_a_damaged_manifest_is_named(self):
        os.truncate(os.path.join(self.directory, "manifest.json"), 20)
        self.assert_restore_fails("manifest.json is damaged")

    def test_another_format_is_refused(self):
        manifest = self.manifest | {"format": 99}
        with open(os.path.join(self.directory, "manifest.json"), "w") as file:
            json.dump(manifest, file)
        self.assert_restore_fails("must be of format 1 or 2. Received: format=99")

    def test_another_width_is_refused(self):
        wide = TableSpec(name="user", slot=1, dim=4, optimizer=_ADAM)
        with self.assertRaisesRegex(
            ValueError, "`user`, slice `vec`, with dim=3; the spec says dim=4"
        ):
            _store(wide).restore(self.directory)

    def test_aliases_must_name_tables(self):
        with self.assertRaisesRegex(
            ValueError, "{'usr': 'user'}; the checkpoint holds"
        ):
            _store().restore(self.directory, aliases={"usr": "user"})
        with self.assertRaisesRegex(ValueError, "the store .*'user', 'item'"):
            _store().restore(self.directory, aliases={"user": "usr"})

    def test_aliases_must_not_merge_tables(self):
        with self.assertRaisesRegex(ValueError, "not merge tables.*fill 'user'"):
            _store().restore(self.directory, aliases={"item": "user"})

    def test_a_checkpoint_is_not_written_over(self):
        with self.assertRaisesRegex(ValueError, "hold an embedding checkpoint already"):
            self.store.save(self.directory)
