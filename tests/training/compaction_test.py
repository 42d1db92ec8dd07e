"""Tests of compaction: a chain becomes a whole checkpoint of the same state."""

import contextlib
import io
import pathlib
import shutil
from unittest import mock

import pytest

from monolith_tf.cli import main
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_commit
from monolith_tf.training import checkpoint_links
from monolith_tf.training import compaction
from tests.training import delta_case


class _Killed(Exception):
    """The process ended."""


class CompactionTest(delta_case.DeltaCase):
    def restored(self, checkpoint):
        job = delta_case.Job(num_shards=3)
        job.restore(checkpoint)
        return job

    def test_the_whole_one_is_the_same_state_and_later_deltas_stay_valid(self):
        job, saved = self.chain(steps=(6, 14, 15))
        before = self.restored(self.checkpoints.latest())
        job.train(range(15, 18))
        job.save(self.checkpoints, 18, as_delta=True)
        done = compaction.in_place(saved.path)
        self.assertEqual((done.step, done.links), (15, 3))
        found = checkpoint_lib.open_checkpoint(saved.path)
        self.assertLen(found.embedding_layers, 1)
        self.assertIsNone(found.parent)
        for name in ("ckpt-00000006", "ckpt-00000014"):
            shutil.rmtree(self.checkpoints.path / name)
        self.assert_same(self.restored(found), before)
        newest = self.checkpoints.latest()
        self.assertEqual([one.step for one in newest.chain()], [15, 18])
        self.assert_same(self.restored(newest), job)
        # The next delta of the job that knows of none of this.
        job.train(range(18, 20))
        newest = job.save(self.checkpoints, 20, as_delta=True)
        self.assertIsNotNone(newest.parent)
        self.assert_same(self.restored(self.checkpoints.latest()), job)
        self.assertIsNone(compaction.in_place(saved.path))

    @pytest.mark.slow
    def test_counts_of_a_sketch_are_kept(self):
        tables = (*delta_case.TABLES, delta_case.SKETCHED)
        job, saved = self.chain(delta_case.Job(tables=tables), steps=(4, 5))
        compaction.in_place(saved.path)
        other = delta_case.Job(num_shards=2, tables=tables)
        other.restore(self.checkpoints.latest())
        self.assert_same(other, job)

    def test_the_parts_that_are_no_longer_needed_are_removed(self):
        job, saved = self.chain(steps=(6, 7))
        reader = checkpoint_lib.open_checkpoint(saved.path)
        compaction.in_place(saved.path)
        names = {path.name for path in saved.path.iterdir()}
        self.assertContainsSubset({"embedding", "embedding-2"}, names)
        checkpoint_lib.check_files(reader)  # It was being read.
        del reader
        job.train(range(7, 8))
        job.save(self.checkpoints, 8, as_delta=True)
        names = {path.name for path in saved.path.iterdir()}
        self.assertNotIn("embedding", names)
        self.assertEqual([n for n in names if n.startswith(".former")], [])
        self.assertEqual(self.checkpoints.latest().step, 8)

    def test_what_the_job_no_longer_needs_goes_with_its_next_checkpoint(self):
        self.checkpoints = self.directory("job", keep=1)
        job, saved = self.chain(steps=(2, 3, 4))
        compaction.in_place(saved.path)
        self.assertLen(self.checkpoints.names(), 3)
        job.train(range(4, 5))
        job.save(self.checkpoints, 5, as_delta=True)
        names = ["ckpt-00000004", "ckpt-00000005"]
        self.assertEqual(self.checkpoints.names(), names)

    def test_the_job_keeps_what_is_being_compacted(self):
        self.checkpoints = self.directory("job", keep=1)
        job, saved = self.chain(steps=(2, 3, 4))
        write = compaction.rows_compact.write

        def meanwhile(*arguments):
            job.train(range(4, 5))
            job.save(self.checkpoints, 5)  # Nothing before it is needed.
            return write(*arguments)

        with mock.patch.object(compaction.rows_compact, "write", meanwhile):
            compaction.in_place(saved.path)
        self.assertEqual(checkpoint_lib.open_checkpoint(saved.path).step, 4)
        job.save(self.checkpoints, 6)
        self.assertEqual(self.checkpoints.names(), ["ckpt-00000006"])

    def test_a_step_that_the_job_writes_again_meanwhile_stays_as_written(self):
        job, saved = self.chain(steps=(2, 3))
        write = compaction.rows_compact.write

        def meanwhile(*arguments):
            manifest = write(*arguments)
            job.root.weight.assign([1.0, 2.0, 3.0])
            job.save(self.checkpoints, 3, as_delta=True)
            return manifest

        with (
            mock.patch.object(compaction.rows_compact, "write", meanwhile),
            self.assertRaisesRegex(checkpoint_commit.ReplacedError, "meantime"),
        ):
            compaction.in_place(saved.path)
        self.assert_same(self.restored(self.checkpoints.latest()), job)

    def test_a_kill_leaves_the_former_one(self):
        job, saved = self.chain(steps=(2, 3))
        for module, function in (
            (compaction.rows_compact, "write"),
            (compaction.checkpoint_commit, "replace"),
            (checkpoint_commit.os, "link"),
        ):
            with (
                mock.patch.object(module, function, side_effect=_Killed),
                mock.patch.object(compaction.shutil, "rmtree"),
                self.assertRaises(_Killed),
            ):
                compaction.in_place(saved.path)
            self.assertLen(self.checkpoints.latest().embedding_layers, 2)
        compaction.in_place(saved.path)
        self.assertLen(self.checkpoints.latest().embedding_layers, 1)
        self.assert_same(self.restored(self.checkpoints.latest()), job)

    def test_the_command_compacts_the_newest_one_or_writes_a_copy(self):
        job, _ = self.chain(steps=(2, 3, 4))
        model_dir = self.path / "model"
        model_dir.mkdir()
        self.checkpoints.path.rename(model_dir / "checkpoints")
        links = checkpoint_links.Links(model_dir / "checkpoints")
        copy = self.path / "copy"
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            _call("inspect", model_dir)
        self.assertRegex(
            shown.getvalue(),
            r"Chain of [\d.]+ KiB\n(.*\n)*.*ckpt-00000002 .*whole.* 2 .*\n"
            r".*ckpt-00000003 .*delta.* 3 .*\n.*ckpt-00000004 .*delta.* 4 ",
        )
        self.assertEqual(_call("compact", model_dir, f"--output={copy}"), 0)
        self.assertEqual(links.of("ckpt-00000004").parent, "ckpt-00000003")
        found = checkpoint_lib.open_checkpoint(copy)
        self.assertEqual(found.manifest["format"], checkpoint_lib.FORMAT)
        self.assert_same(self.restored(found), job)
        self.assertEqual(_call("compact", model_dir), 0)
        self.assertIsNone(links.of("ckpt-00000004").parent)
        newest = checkpoint_lib.open_checkpoint(
            model_dir / "checkpoints" / "ckpt-00000004"
        )
        self.assert_same(self.restored(newest), job)
        self.assertEqual(_call("compact", model_dir), 0)
        self.assertEqual(_call("compact", self.path / "none"), 2)
        self.assertEqual(_call("compact", model_dir, "--every=soon"), 2)


def _call(command: str, path: pathlib.Path, *options: str) -> int:
    return main.main(main.parse(["monolith-tf", command, str(path), *options]))
