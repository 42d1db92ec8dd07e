"""Jobs that resume on their data, or on other data, and what they then train on."""

import csv
import gc
import json
import pathlib
import shutil
from unittest import mock

from monolith_tf import testing
from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from monolith_tf.training import actions

_CONFIG = """\
model_dir: {folder}/model
seed: 3
data:
  {{train: {folder}/a.csv, eval: {folder}/a.csv, batch_size: 16, shuffle_buffer: 64}}
features:
  - {{name: user, kind: id}}
labels: [click]
default_table: {{dim: 2}}
model:
  blocks: [{{name: deep, layer: MLP, inputs: [all], args: {{output_dims: [1]}}}}]
  heads: [{{label: click, inputs: [deep]}}]
trainer: {{epochs: 1, steps_per_loop: 3, log_every_steps: 1000, summaries: false}}
"""


class ResumedPositionTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.get_temp_dir()) / self.id()
        self.folder.mkdir()
        self.config = self.folder / "config.yaml"
        self.config.write_text(_CONFIG.format(folder=self.folder))
        self.write("a", 100, first_user=1000)

    def tearDown(self):
        super().tearDown()
        gc.collect()

    def write(self, name, rows, first_user):
        """Writes a file of users that no other file has."""
        path = self.folder / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user", "click"])
            writer.writerows((first_user + row, row % 2) for row in range(rows))

    def train(self, *overrides):
        """Trains; returns what was logged."""
        with self.assertLogs("absl", "INFO") as logs:
            estimator_lib.Estimator(self.config, *overrides).train()
        gc.collect()
        return "\n".join(logs.output)

    def records(self, phase):
        text = (self.folder / "model" / "metrics.jsonl").read_text()
        records = [json.loads(line) for line in text.splitlines()]
        return [record for record in records if record["phase"] == phase]

    def examples(self):
        return self.records("train")[-1]["examples"]

    def users(self):
        """How many users have been trained on."""
        found = small_job.last(self.folder / "model")
        return len(small_job.rows(found.embedding_dir))

    def test_other_files_are_trained_on_from_their_first_row(self):
        self.train()
        self.write("b", 250, first_user=5000)
        logs = self.train(f"data.train={self.folder}/b.csv", "trainer.epochs=2")
        self.assertEqual(self.users(), 100 + 250)
        self.assertEqual(self.examples(), 100 + 2 * 250)
        self.assertIn("starting with row 0; 0 rows of the old", logs)
        # The next run continues there.
        logs = self.train(f"data.train={self.folder}/b.csv", "trainer.epochs=3")
        self.assertEqual(self.examples(), 100 + 3 * 250)
        self.assertNotIn("starting with row", logs)

    def test_rows_of_the_former_files_that_were_not_read_are_counted(self):
        self.train("trainer.max_steps=4")
        self.write("b", 40, first_user=5000)
        logs = self.train(f"data.train={self.folder}/b.csv")
        self.assertIn(f"row 0; {100 - 4 * 16} rows of the old", logs)
        self.assertEqual(self.users(), 64 + 40)

    def test_a_file_that_has_another_content_is_another_file(self):
        self.train()
        self.write("a", 100, first_user=2000)  # As many rows and bytes.
        self.train()
        self.assertEqual(self.users(), 200)

    def test_a_file_that_is_replaced_while_the_job_runs_stops_it(self):
        job = estimator_lib.Estimator(
            self.config, "trainer.epochs=500", "trainer.log_every_steps=9"
        )
        train = self.folder / "a.csv"

        def replace(log, run):
            del log
            if run.progress.step == 9:
                self.write("b", 40, first_user=5000)
                (self.folder / "b.csv").replace(train)

        with (
            mock.patch.object(actions.Log, "work", replace),
            self.assertRaisesRegex(ValueError, "while the job reads it: it had") as it,
        ):
            job.train()
        self.assertStartsWith(str(it.exception), f"{train}: changed while the job")
        # The next run starts with the file as it is now.
        self.train("trainer.epochs=1")
        self.assertEqual(self.users(), 40)

    def test_the_same_files_in_another_folder_are_the_same(self):
        self.write("day/1/a", 50, first_user=1000)
        self.write("day/2/a", 50, first_user=2000)
        self.train(f"data.train={self.folder}/day/*/a.csv", "trainer.max_steps=3")
        shutil.move(self.folder / "day", self.folder / "moved")
        logs = self.train(f"data.train={self.folder}/moved/**/*.csv")
        self.assertNotIn("starting with row", logs)
        self.assertEqual((self.examples(), self.users()), (100, 100))
        logs = self.train(f"data.train={self.folder}/moved/**/*.csv")
        self.assertIn("nothing to train", logs)
        self.assertEqual(self.examples(), 100)

    def test_a_day_in_a_folder_of_its_own_is_other_data(self):
        self.write("1/a", 100, first_user=1000)
        self.write("2/a", 100, first_user=2000)
        self.train(f"data.train={self.folder}/1/a.csv")
        self.train(f"data.train={self.folder}/2/a.csv")
        self.assertEqual(self.users(), 200)

    def test_appended_files_are_gone_on_with_in_the_order_of_files(self):
        in_order = "data.shuffle_buffer=0"
        self.train(in_order)
        self.write("b", 250, first_user=5000)
        both = f"data.train={self.folder}/[ab].csv"
        logs = self.train(in_order, both)
        self.assertIn("1 files follow", logs)
        self.assertEqual(self.users(), 350)
        self.assertIn("continuing at row 100 of all files", logs)
        self.assertEqual(self.examples(), 350)

    def test_appended_files_change_a_shuffled_order_so_all_begin_again(self):
        self.train()
        self.write("b", 250, first_user=5000)
        logs = self.train(f"data.train={self.folder}/[ab].csv")
        self.assertIn("starting with row 0", logs)
        self.assertEqual((self.examples(), self.users()), (100 + 350, 350))

    def test_files_appended_after_a_second_epoch_begin_again(self):
        in_order = "data.shuffle_buffer=0"
        self.train(in_order, "trainer.epochs=2")
        self.write("b", 250, first_user=5000)
        self.train(in_order, f"data.train={self.folder}/[ab].csv")
        self.assertEqual((self.examples(), self.users()), (2 * 100 + 350, 350))

    def test_a_checkpoint_that_names_no_files_goes_on(self):
        self.train("trainer.max_steps=4")
        found = small_job.last(self.folder / "model")
        small_job.rewrite_manifests(
            found, lambda manifest: manifest.get("state", {}).pop("data", None)
        )
        logs = self.train()
        self.assertIn("does not say to which files", logs)
        self.assertEqual((self.examples(), self.users()), (100, 100))

    def test_epochs_end_where_they_did_at_another_batch_size(self):
        every = "trainer.eval_every_epochs=1"
        self.train(every, "trainer.epochs=3")
        self.train(every, "trainer.epochs=4", "data.batch_size=40")
        self.assertEqual(self.examples(), 4 * 100)
        self.train(every, "trainer.epochs=6", "data.batch_size=8")
        self.assertEqual(self.examples(), 6 * 100)
        # Evaluations are at the ends of epochs: of 7, 3 and 13 batches.
        steps = [record["step"] for record in self.records("eval")]
        self.assertEqual(steps, [7, 14, 21, 24, 37, 50])

    def test_another_batch_size_within_an_epoch_goes_on_at_its_row(self):
        in_order = "data.shuffle_buffer=0"
        # Up to row 80 of epoch 1.
        self.train(in_order, "trainer.epochs=2", "trainer.max_steps=12")
        logs = self.train(in_order, "trainer.epochs=2", "data.batch_size=30")
        self.assertIn("continuing at row 80 of epoch 1", logs)
        self.assertEqual(self.examples(), 200)
        self.assertNotIn("order of rows changed", logs)

    def test_another_order_within_an_epoch_is_said(self):
        self.train("trainer.max_steps=4")
        logs = self.train("seed=4")
        self.assertIn("epoch 0 ends in the order in which it began", logs)
        self.assertEqual((self.examples(), self.users()), (100, 100))

    def test_a_checkpoint_that_names_no_files_goes_on_at_its_row(self):
        self.train("trainer.max_steps=4")
        found = small_job.last(self.folder / "model")
        small_job.rewrite_manifests(
            found, lambda manifest: manifest.get("state", {}).pop("data", None)
        )
        logs = self.train("data.batch_size=30")  # Windows of 90 rows, and of 64 before.
        self.assertIn("does not say to which files", logs)
        self.assertEqual((self.examples(), self.users()), (100, 100))

    def test_other_numbers_of_rows_keep_the_epoch(self):
        held_out = ("data.eval=[]", "data.validation_fraction=0.2")
        self.train("trainer.epochs=3")
        logs = self.train("trainer.epochs=4", *held_out)
        self.assertRegex(logs, r"have \d+ rows to train on, and had 100")
        found = small_job.last(self.folder / "model")
        rows = found.manifest["state"]["data"]["rows"]
        self.assertBetween(rows, 60, 95)
        self.assertEqual(self.examples(), 300 + rows)
