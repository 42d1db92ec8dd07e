"""Tests of bad files, rows and cells: they raise errors, or are skipped and counted.

Always: rows in the files = rows trained on + rows skipped and counted.
"""

import contextlib
import csv
import json
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from monolith_tf.experiment import estimator
from monolith_tf.testing import examples
from monolith_tf.training import loop

CONFIG = """\
model_dir: {folder}/model
data:
  train: {folder}/train*.{format}
  eval: {folder}/eval*.{format}
  batch_size: 32
  shuffle_buffer: 100
  on_bad_row: {on_bad_row}
features:
  - {{name: user, kind: id}}
  - {{name: tags, kind: id_list}}
  - {{name: price, kind: dense}}
labels: [{label}]
default_table: {{dim: 4}}
model: {model}
trainer: {{epochs: 2, log_every_steps: 5, summaries: false}}
metrics: [log_loss]
"""
MODEL = (
    "{blocks: [{name: logit, layer: Dense, inputs: [all], args: {units: 1}}], "
    "heads: [{label: click, inputs: [logit]}]}"
)
FORMATS = ("csv", "parquet", "tfrecord")
EVALUATED = "trainer.eval_every_epochs=1"


def good_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "user": int(rng.integers(20)),
            "tags": rng.integers(0, 9, rng.integers(4)).tolist(),
            "price": float(rng.integers(100)) / 4,
            "click": int(rng.integers(2)),
        }
        for _ in range(count)
    ]


def write(path, rows):
    """Writes rows in the format of the file's extension."""
    {".csv": write_csv, ".parquet": write_parquet, ".tfrecord": examples.write}[
        path.suffix
    ](path, rows)


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        for row in rows:
            tags = "|".join(map(str, row["tags"]))
            writer.writerow(
                "" if v is None else v for v in {**row, "tags": tags}.values()
            )


def write_parquet(path, rows):
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)


class Job:
    """A job on files of one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "config.yaml"

    def write(self, format_, train, evaluated=None):
        write(self.folder / f"train.{format_}", train)
        write(self.folder / f"eval.{format_}", evaluated or good_rows(40, seed=1))

    def estimator(self, format_="csv", *overrides, on_bad_row="error", model=MODEL,
                  label="click"):  # fmt: skip
        text = CONFIG.format(
            folder=self.folder,
            format=format_,
            on_bad_row=on_bad_row,
            model=model,
            label=label,
        )
        self.path.write_text(text, encoding="utf-8")
        return estimator.Estimator(self.path, *overrides)

    def fails(self, pattern, *args, **kwargs):
        """Trains, and expects this error."""
        with pytest.raises(ValueError, match=pattern):
            self.estimator(*args, **kwargs).train()

    def trains(self, *args, **kwargs):
        """Trains, and returns the counts and the rows trained on in an epoch."""
        self.estimator(*args, **kwargs).train()
        examples = self.records("train")[-1]["examples"]
        counts = self.records("data")
        assert examples % 2 == 0  # Two epochs.
        return (counts[-1] if counts else {}), examples // 2

    def records(self, phase):
        lines = (self.folder / "model" / "metrics.jsonl").read_text().splitlines()
        return [r for r in map(json.loads, lines) if r["phase"] == phase]


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.mark.parametrize("format_", FORMATS)
def test_labels_outside_of_what_a_log_loss_takes(job, format_):
    rows = good_rows(120)
    for place, label in ((70, 5), (71, -1)):
        rows[place]["click"] = label
    job.write(format_, rows)
    job.fails(
        rf"train\.{format_}: row 70 \(counting from 0\): column `click`: the label 5 "
        "is not between 0 and 1.*set `equals` of the label.*on_bad_row` to `skip`",
        format_,
    )
    counts, trained = job.trains(format_, on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (2, 118)


def test_labels_of_the_evaluated_rows(job):
    rows = good_rows(40)
    rows[3]["click"] = 2
    job.write("parquet", good_rows(64), rows)
    where = r"eval\.parquet: row 3 .*the label 2 is not between 0 and 1"
    job.fails(where, "parquet", EVALUATED)
    counts, trained = job.trains("parquet", EVALUATED, on_bad_row="skip")
    assert (counts["eval/bad_rows"], counts["train/bad_rows"], trained) == (1, 0, 64)


def test_fractions_are_labels_wherever_they_first_come(job):
    rows = [{**row, "note": "x" * 400} for row in good_rows(3000)]
    rows[-1]["click"] = 0.25
    job.write("csv", rows)
    assert (job.folder / "train.csv").stat().st_size > 1 << 20  # Of two blocks.
    counts, trained = job.trains("csv", "data.batch_size=500")
    assert (counts, trained) == ({}, 3000)


def test_labels_of_another_loss_are_of_any_numbers(job):
    rows = good_rows(64)
    for row in rows:
        row["click"] = 1 + 4 * row["click"]
    job.write("parquet", rows, rows)
    regression = """{
      blocks: [{name: deep, layer: Dense, inputs: [all], args: {units: 1}}],
      heads: [{label: click, inputs: [deep], loss: mse}]}"""
    _, trained = job.trains("parquet", "metrics=[mse]", model=regression)
    assert trained == 64


def test_labels_by_equals_are_of_any_numbers(job):
    rows = good_rows(64)
    for row in rows:
        row["click"] = 1 + 4 * row["click"]
    job.write("parquet", rows)
    counts, trained = job.trains("parquet", label="{name: click, equals: 5}")
    assert (counts, trained) == ({}, 64)


def test_a_log_loss_of_blocks_looks_at_its_label_too(job):
    rows = good_rows(64)
    rows[9]["click"] = 3
    job.write("parquet", rows)
    blocks = """{blocks: [{name: deep, layer: Dense, inputs: [all], args: {units: 1}}],
      heads: [{label: click, inputs: [deep]}]}"""
    job.fails(r"row 9 .*the label 3 is not between", "parquet", model=blocks)


def test_a_default_outside_of_what_a_log_loss_takes(job):
    job.write("csv", good_rows(10))
    with pytest.raises(ValueError, match="`default` of label `click` must be from 0"):
        job.estimator(label="{name: click, default: -1}")


@contextlib.contextmanager
def module(folder, name, text):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)


def test_a_model_of_ones_own_takes_no_step_on_such_labels(job):
    rows = good_rows(64)
    rows[9]["click"] = 3
    job.write("parquet", rows)
    text = """
        import tensorflow as tf
        import monolith_tf as mt

        class OwnLogLoss(mt.Model):
            def __init__(self, params):
                super().__init__()
                self.logit = mt.layers.Dense(1)

            def model_fn(self, inputs, mode):
                logits = self.logit(inputs.concat())[:, 0]
                predictions = tf.sigmoid(logits)
                if mode is mt.Mode.PREDICT:
                    return mt.EstimatorSpec(mode=mode, predictions=predictions)
                loss = mt.losses.log_loss(inputs.labels["click"], logits)
                return mt.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)
        """
    place = r"(?s)not finite.*train\.parquet rows.*label `click` is not from 0 to 1"
    with (
        module(job.folder, "own_log_loss", text),
        pytest.raises(loop.NonFiniteLossError, match=place),
    ):
        job.estimator("parquet", model="{class: own_log_loss:OwnLogLoss}").train()


def test_labels_of_an_input_fn(job):
    text = """
        import numpy as np
        import tensorflow as tf

        def batches(split):
            user = np.arange(96)
            click = user % 2
            click[70] = 2
            columns = {"user": user, "click": click}
            return tf.data.Dataset.from_tensor_slices(columns).batch(32)
        """
    overrides = [
        "data={input_fn: bad_batches:batches}",
        "features=[{name: user, kind: id}]",
    ]
    with module(job.folder, "bad_batches", text):
        job.fails(
            "`data.input_fn`, split `train`, batch 2, row 6: column `click`: the label "
            "2 is not between 0 and 1",
            "csv",
            *overrides,
        )


@pytest.mark.parametrize("format_", FORMATS)
def test_weights_that_are_negative_or_not_finite(job, format_):
    rows = [
        {**row, "weight": float(place % 3)} for place, row in enumerate(good_rows(80))
    ]
    for place, weight in ((70, -1.0), (71, np.inf), (72, -np.inf), (73, np.nan)):
        rows[place]["weight"] = weight
    job.write(format_, rows, [{**row, "weight": 1.0} for row in good_rows(40)])
    job.fails(
        rf"train\.{format_}: row 70 \(counting from 0\): column `weight`: the weight "
        "-1 is not a finite number of at least 0.*`data.on_bad_row` to `skip`",
        format_,
        "data.weight=weight",
    )
    counts, trained = job.trains(format_, "data.weight=weight", on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (4, 76)


@pytest.mark.parametrize("format_", FORMATS)
def test_infinite_numbers_that_would_spoil_a_mean(job, format_):
    rows = good_rows(80)
    for place, price in ((70, np.inf), (71, -np.inf), (72, 1e39), (73, 1e38)):
        rows[place]["price"] = price
    job.write(format_, rows)
    zscore = "features[2].transform=zscore"
    job.fails(
        rf"train\.{format_}: row 70 \(counting from 0\): column `price`: inf, as "
        "float32, has no distance to the mean.* put `clip` before it.*on_bad_row`",
        format_,
        zscore,
    )
    overrides = (zscore, "features[2].default=1.0")
    counts, trained = job.trains(format_, *overrides, on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (3, 77)
    # No mean is taken of rows that are predicted.
    overrides += (f"data.test={job.folder}/train.{format_}",)
    predicted = job.estimator(format_, *overrides).predict("test")
    assert sum(len(batch["click"]) for batch in predicted) == 80


@pytest.mark.parametrize(
    ("transform", "num_bad"),
    [
        ("[{name: clip, max: 50}, zscore]", 1),
        ("[{name: clip, min: 1}, log1p, zscore]", 2),
        ("[log1p, {name: clip, min: 1, max: 4}, zscore]", 0),
        ("[{name: zscore, mean: 1, std: 9}, {name: clip, min: 0, max: 1}]", 0),
        ("[{name: clip, min: 0, max: 1}]", 0),
    ],
)
def test_infinite_numbers_that_are_clipped(job, transform, num_bad):
    rows = good_rows(80)
    for place, price in ((70, np.inf), (71, -np.inf), (72, np.inf)):
        rows[place]["price"] = price
    job.write("parquet", rows)
    override = f"features[2].transform={transform}"
    counts, trained = job.trains("parquet", override, on_bad_row="skip")
    assert (counts.get("train/bad_rows", 0), trained) == (num_bad, 80 - num_bad)


def test_weights_that_are_whole_numbers(job):
    rows = [{**row, "weight": 2} for row in good_rows(80)]
    rows[9]["weight"] = -2
    job.write("parquet", rows, rows)
    job.fails(r"row 9 .*the weight -2 is not a finite", "parquet", "data.weight=weight")


def test_weights_of_an_input_fn(job):
    text = """
        import numpy as np
        import tensorflow as tf

        def batches(split):
            user = np.arange(96)
            weight = np.ones(96, np.float32)
            weight[70] = -2
            columns = {"user": user, "click": user % 2, "weight": weight}
            return tf.data.Dataset.from_tensor_slices(columns).batch(32)
        """
    overrides = [
        "data={input_fn: weighed_batches:batches, weight: weight}",
        "features=[{name: user, kind: id}]",
    ]
    with module(job.folder, "weighed_batches", text):
        job.fails(
            "`data.input_fn`, split `train`, batch 2, row 6: column `weight`: the "
            "weight -2 is not a finite number of at least 0",
            "csv",
            *overrides,
        )


@pytest.mark.parametrize("format_", FORMATS)
def test_missing_labels_that_become_a_default_are_counted(job, format_):
    rows = good_rows(120)
    for row in rows:
        row["click"] = float(row["click"])
    rows[10]["click"] = None
    rows[11]["click"] = float("nan")
    job.write(format_, rows)
    if format_ == "csv":
        job.fails(r"row 10 .*no value in column `click`, and no default", format_)
    counts, trained = job.trains(format_, label="{name: click, default: 0}")
    assert counts["train/defaults/click"] == 2
    assert (counts["train/bad_rows"], trained) == (0, 120)


def test_a_number_with_a_comma_is_no_reason_to_read_strings(job):
    rows = good_rows(60)
    rows[20]["price"] = "12,50"
    job.write("csv", rows)
    job.fails(
        r"train\.csv: row 20 \(counting from 0\): column `price`: '12,50' is not a "
        "number. Write numbers with a decimal point.*Fix the row"
    )
    counts, trained = job.trains(on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (1, 59)


def test_a_column_of_words_for_numbers_shows_one(job):
    rows = good_rows(60)
    for row in rows:
        row["price"] = "12,50"
    rows[0]["price"] = "7"
    job.write("csv", rows)
    with pytest.raises(
        ValueError,
        match=r"`price` of strings, such as '12,50' in row 1 of .*train\.csv "
        r"\(counting from 0\)\. Write numbers with a decimal point",
    ):
        job.estimator()


def test_a_fraction_among_ids_is_shown_and_may_be_left_out(job):
    rows = good_rows(60)
    rows[20]["user"] = "12.5"
    job.write("csv", rows)
    with pytest.raises(
        ValueError,
        match=r"`user` of floats, such as '12\.5' in row 20 of .*train\.csv "
        r".*`dtype: int`",
    ):
        job.estimator()
    counts, trained = job.trains("csv", "features[0].dtype=int", on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (1, 59)


def test_no_file_has_rows(job):
    job.write("csv", good_rows(60))
    (job.folder / "train.csv").write_text("user,tags,price,click\n")
    with pytest.raises(ValueError, match=r"train\.csv: has no rows, and no file of"):
        job.estimator(on_bad_row="skip")


@pytest.mark.parametrize("place", [3, 2900])
def test_ids_do_not_change_their_type_by_where_an_odd_one_stands(job, place):
    rows = [{**row, "note": "x" * 400} for row in good_rows(3000)]
    rows[place]["user"] = "x12"
    rows[place + 1]["tags"] = [1, "y"]
    job.write("csv", rows)
    assert (job.folder / "train.csv").stat().st_size > 1 << 20  # Of two blocks.
    job.fails(
        rf"train\.csv: row {place} .*column `user`: 'x12' is not an integer.*`data."
        "null_values`; if the column has another type, set `dtype`",
        "csv",
        "data.shuffle_buffer=0",
    )
    counts, trained = job.trains("csv", "data.batch_size=500", on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (2, 2998)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("user", "true", "`user`: 'true' is not an integer"),
        ("tags", [1, "False"], "`tags`: 'False' is not an integer"),
        ("price", "TRUE", "`price`: 'TRUE' is not a number"),
        ("click", "true", "`click`: 'true' is not a number"),
    ],
)
def test_truth_values_among_numbers_are_bad_cells(job, column, cell, message):
    rows = good_rows(60)
    rows[20][column] = cell
    job.write("csv", rows)
    job.fails(rf"train\.csv: row 20 .*{message}", "csv")
    counts, trained = job.trains("csv", on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (1, 59)


def test_a_file_of_truth_values_is_not_of_numbers(job):
    rows = good_rows(60)
    job.write("csv", rows)
    write_csv(
        job.folder / "train2.csv",
        [{**row, "user": str(row["click"] == 1)} for row in rows],
    )
    counts, trained = job.trains("csv", on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (60, 60)


def test_columns_of_truth_values_are_zeros_and_ones(job):
    rows = good_rows(60)
    job.write("csv", [{**row, "user": row["user"] % 2, "tags": []} for row in rows])
    with_words = [
        {**row, "user": str(row["user"] % 2 == 1), "click": str(row["click"] == 1),
         "tags": []}
        for row in rows
    ]  # fmt: skip
    losses = []
    for train in (
        with_words,
        [{**row, "user": row["user"] % 2, "tags": []} for row in rows],
    ):
        job.write("csv", train)
        shutil.rmtree(job.folder / "model", ignore_errors=True)
        counts, trained = job.trains("csv", "features[1].dtype=int")
        assert (counts, trained) == ({}, 60)
        losses.append([record["loss"] for record in job.records("train")])
    assert losses[0] == losses[1]


def test_ids_that_are_declared_strings_may_be_anything(job):
    rows = good_rows(60)
    rows[3]["user"] = "x12"
    job.write("csv", rows)
    counts, trained = job.trains("csv", "features[0].dtype=string")
    assert (counts, trained) == ({}, 60)


def test_files_in_other_encodings(job):
    job.write("csv", good_rows(60))
    path = job.folder / "train.csv"
    text = path.read_text()
    for encoding, name in (
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
    ):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(
            ValueError,
            match=rf"train\.csv: this looks like {name}, but.*`iconv -f {name} -t",
        ):
            job.estimator()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert job.trains() == ({}, 60)


def test_cells_that_are_no_text(job):
    rows = good_rows(60)
    for row in rows:
        row["user"] = f"user {row['user']}"
    rows[7]["user"] = "José"
    rows[9]["user"] = "user\0"
    job.write("csv", rows)
    path = job.folder / "train.csv"
    content = path.read_text(encoding="utf-8")
    job.fails(r"train\.csv: row 9 .*column `user`: b'user\\x00' has a NUL byte")
    path.write_bytes(content.encode("latin-1"))
    job.fails(
        r"train\.csv: row 7 .*column `user`: b'Jos\\xe9' is not UTF-8 text.*`iconv -f "
        "LATIN1"
    )
    counts, trained = job.trains(on_bad_row="skip")
    assert (counts["train/bad_rows"], trained) == (2, 58)


def test_a_header_that_is_no_text(job):
    job.write("csv", good_rows(10))
    path = job.folder / "train.csv"
    path.write_bytes(path.read_bytes().replace(b"price", b"pr\xeece"))
    with pytest.raises(
        ValueError, match=r"train\.csv: the name b'pr\\xeece' of a column"
    ):
        job.estimator()


@pytest.mark.parametrize("format_", FORMATS)
def test_files_without_rows(job, format_):
    job.write(format_, good_rows(60))
    empty = job.folder / f"train-0.{format_}"
    if format_ == "csv":
        empty.write_text("user,tags,price,click\n")
    elif format_ == "parquet":
        table = parquet.read_table(job.folder / "train.parquet")
        parquet.write_table(table.slice(0, 0), empty)
    else:
        tf.io.TFRecordWriter(str(empty)).close()
    later = job.folder / f"train-later.{format_}"
    files = f"data.train=[{job.folder}/train.{format_}, {later}]"
    if format_ != "csv":
        empty.rename(later)
        counts, trained = job.trains(format_, files)
        assert (counts["train/empty_files"], trained) == (1, 60)
        return
    with pytest.raises(ValueError, match=r"train-0\.csv: has no rows"):
        job.estimator(format_)
    empty.rename(later)
    with pytest.raises(ValueError, match=r"train-later\.csv: has no rows"):
        job.estimator(format_, files).train()
    counts, trained = job.trains(format_, files, on_bad_row="skip")
    assert (counts["train/empty_files"], trained) == (1, 60)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_two_columns_of_one_name(job, format_):
    job.write(format_, good_rows(60))
    path = job.folder / f"train.{format_}"
    if format_ == "csv":
        path.write_text(path.read_text().replace("tags", "price", 1))
    else:
        table = parquet.read_table(path)
        parquet.write_table(table.append_column("price", table["click"]), path)
    with pytest.raises(ValueError, match=r"two columns are named `price`\. Rename"):
        job.estimator(format_)


def test_clipped_values_are_counted(job):
    rows = good_rows(120)
    for place, price in ((3, 1000.0), (50, -7.0), (51, 1e9)):
        rows[place]["price"] = price
    rows[4]["price"] = 25.0  # At the limit.
    job.write("parquet", rows)
    counts, trained = job.trains(
        "parquet", "features[2].transform=[{name: clip, min: 0, max: 25}]"
    )
    expected = sum(not 0 <= row["price"] <= 25 for row in rows)
    assert expected == 3
    assert counts["train/clipped/price"] == 2 * expected  # In two epochs.
    assert trained == 120
    first = job.records("data")[0]
    assert first["step"] == 5 and first["train/clipped/price"] <= 2 * expected


def test_the_command_says_it_in_one_line(job):
    rows = good_rows(60)
    rows[20]["click"] = 5
    job.write("csv", rows)
    job.estimator()
    ran = subprocess.run(
        [sys.executable, "-m", "monolith_tf", "train", str(job.path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode != 0
    assert "train.csv: row 20" in ran.stderr and "the label 5 is not" in ran.stderr
    assert "Traceback" not in ran.stderr
