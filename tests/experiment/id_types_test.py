"""Tests of the types of ids, from files of every format to rows."""

import csv
import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from monolith_tf import config as config_lib
from monolith_tf.data import csv_file
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.experiment import estimator
from monolith_tf.export import metadata
from monolith_tf.testing import examples
from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint as checkpoint_lib

CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/train.{format}, test: {folder}/test.{format}, batch_size: 256}}
features:
  - {{name: item_id, kind: id, table: item}}
  - {{name: history, kind: id_list, table: item, combiner: mean, max_length: 50}}
labels: [click]
tables:
  - {{name: item, dim: 16, optimizer: {{name: adagrad, learning_rate: 0.2}}}}
model: {{name: dcn, params: {{label: click, hidden_units: [32]}}}}
trainer:
  epochs: {epochs}
  optimizer: {{name: adam, learning_rate: 0.01}}
  summaries: false
metrics: [auc]
"""
ITEMS = 40


def rows_of(count, seed):
    """Rows in which a click says that the item is in the history."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        history = rng.choice(ITEMS, rng.integers(1, 6), replace=False) + 1000
        click = int(rng.random() < 0.5)
        item = rng.choice(history) if click else rng.integers(ITEMS) + 1000
        yield int(item), history.tolist(), int(item in history)


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "history", "click"])
        writer.writerows([i, "|".join(map(str, h)), c] for i, h, c in rows)


def write_parquet(path, rows):
    names = ["item_id", "history", "click"]
    parquet.write_table(
        pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), path
    )


def write_tfrecord(path, rows):
    names = ("item_id", "history", "click")
    examples.write(path, [dict(zip(names, row, strict=True)) for row in rows])


WRITERS = {"csv": write_csv, "parquet": write_parquet, "tfrecord": write_tfrecord}


@pytest.fixture
def job(tmp_path):
    """Writes a job over files of a format; returns its config."""

    def write(format="csv", *overrides, rows=600, epochs=1):
        for seed, split in enumerate(("train", "test")):
            count = rows // (1 + seed)
            WRITERS[format](tmp_path / f"{split}.{format}", list(rows_of(count, seed)))
        path = tmp_path / "config.yaml"
        text = CONFIG.format(folder=tmp_path, format=format, epochs=epochs)
        path.write_text(text, encoding="utf-8")
        return config_lib.load_config(path, overrides)

    return write


def test_an_item_and_a_history_share_rows_in_every_format(job, tmp_path):
    found = {}
    for format in WRITERS:
        model = f"model_dir={tmp_path}/{format}"
        config = job(format, model, "trainer.deterministic=true")
        estimator.Estimator(config).train()
        found[format] = small_job.rows(small_job.last(tmp_path / format).embedding_dir)
    assert len(found["csv"]) == ITEMS
    assert found["csv"] == found["parquet"] == found["tfrecord"]


def test_an_item_is_known_again_in_a_history_of_csv(job):
    made = estimator.Estimator(job("csv", rows=12_000, epochs=10))
    made.train()
    assert made.evaluate("test")["click/auc"] > 0.97


def test_types_are_kept_and_a_checkpoint_of_others_is_refused(job):
    config = job("csv")
    estimator.Estimator(config).train()
    found = small_job.last(config_dir(config))
    assert found.manifest["state"]["id_types"] == {"item": "int"}
    features = tuple(dataclasses.replace(f, dtype="string") for f in config.features)
    strings = dataclasses.replace(config, features=features)
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=r"`item_id`, of table `item`, are strings now, as the config declares "
        r"it, .* for integers.*Set `dtype: int` for `item_id`, `history`",
    ):
        estimator.Estimator(strings).train()


def config_dir(config):
    return small_job.pathlib.Path(config.model_dir)


def forget_types(config):
    """Turns a checkpoint into one of version 0.1.0, which did not have the types."""
    small_job.rewrite_manifests(
        small_job.last(config_dir(config)),
        lambda manifest: manifest.get("state", {}).pop("id_types", None),
    )


def test_lists_of_csv_were_strings_before_types_were_kept(job):
    """A list with its own table: the suggested setting brings its rows back."""
    alone = "features[0].table=other"
    tables = "tables=[{name: item, dim: 4}, {name: other, dim: 4}]"
    strings = "features[1].dtype=string"
    config = job("csv", alone, tables, strings)
    estimator.Estimator(config).train()
    forget_types(config)
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=r"`history`, of table `item`, are integers now, .* for strings.*"
        "Set `dtype: string` for `history`, or train in another",
    ):
        estimator.Estimator(job("csv", alone, tables)).train()
    again = estimator.Estimator(job("csv", alone, tables, strings, "trainer.epochs=2"))
    again.train()
    saved = small_job.last(config_dir(config))
    manifest = checkpoint_files.read_manifest(saved.embedding_dir)
    assert [t["counters"]["rows"] for t in manifest["tables"]] == [ITEMS, ITEMS]


def test_integers_with_an_odd_cell_were_strings_before_types_were_kept(job, tmp_path):
    alone = ("features=[{name: item_id, kind: id}]", "tables=[{name: item_id, dim: 4}]")
    before = job("csv", *alone, "features[0].dtype=string")
    for split in ("train", "test"):
        with (tmp_path / f"{split}.csv").open("a") as file:
            file.write("x12,,0\n")
    estimator.Estimator(before).train()
    forget_types(before)
    path = tmp_path / "config.yaml"
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=r"`item_id`, are integers now, .* for strings.*`dtype: string`",
    ):
        estimator.Estimator(config_lib.load_config(path, alone)).train()
    estimator.Estimator(before).train()


def test_a_table_of_two_types_of_before_has_no_line_that_keeps_it(job):
    config = job("csv")
    estimator.Estimator(config).train()
    forget_types(config)
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=r"`history`, .*Its rows have two types, since `item_id`, `history` "
        r"share it, .* train in another",
    ):
        estimator.Estimator(config).evaluate()


def test_a_warm_start_of_another_type_is_refused(job, tmp_path):
    config = job("csv")
    estimator.Estimator(config).train()
    features = tuple(dataclasses.replace(f, dtype="string") for f in config.features)
    trainer = dataclasses.replace(config.trainer, warm_start=(config.model_dir,))
    other = dataclasses.replace(
        config, features=features, trainer=trainer, model_dir=f"{tmp_path}/other"
    )
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=r"warm_start`: .* table `item` for ids that are integers; .* strings",
    ):
        estimator.Estimator(other).train()


CODES = """\
model_dir: {folder}/model
data: {{train: {folder}/train.csv, test: {folder}/train.csv, batch_size: 4}}
features:
  - {{name: zip, kind: id}}
  - {{name: month, kind: dense}}
labels: [y]
default_table: {{dim: 2}}
model:
  blocks:
    - {{name: deep, layer: MLP, inputs: [all], args: {{output_dims: [1]}}}}
  heads: [{{label: y, inputs: [deep]}}]
trainer: {{summaries: false}}
"""


@pytest.fixture
def codes(tmp_path):
    """Writes a job on codes of one column; returns its config."""

    def write(cells, *overrides):
        rows = [f"{cell},0{1 + i % 9},{i % 2}" for i, cell in enumerate(cells)]
        text = "\n".join(["zip,month,y", *rows]) + "\n"
        (tmp_path / "train.csv").write_text(text)
        path = tmp_path / "config.yaml"
        path.write_text(CODES.format(folder=tmp_path), encoding="utf-8")
        return config_lib.load_config(path, overrides)

    return write


def num_rows(config):
    """Rows of the only table of a job's last checkpoint."""
    return len(small_job.rows(small_job.last(config_dir(config)).embedding_dir))


@pytest.mark.parametrize("cells", [["007", "7", "0007"], ["0x10", "16", "0X10"]])
def test_codes_of_csv_do_not_share_a_row(codes, cells):
    config = codes(cells)
    estimator.Estimator(config).train()
    assert num_rows(config) == 3
    predicted = np.concatenate(
        [batch["y"] for batch in estimator.Estimator(config).predict("test")]
    )
    assert len(set(predicted.tolist())) == 3


def test_a_code_after_the_sample_is_a_bad_row_that_names_the_types(codes, monkeypatch):
    monkeypatch.setattr(csv_file, "_BLOCK_BYTES", 50)
    cells = [*(str(100 + i) for i in range(30)), "007"]
    config = codes(cells, "data.on_bad_row=skip")
    estimator.Estimator(config).train()
    assert num_rows(config) == 30
    error = r"row 30 .* '007' .* `dtype: string` .* `dtype: int` for integers"
    with pytest.raises(ValueError, match=error):
        list(estimator.Estimator(codes(cells)).predict("test"))
    unverified = codes(cells, "data.on_bad_row=skip", "export.verify_rows=0")
    exported = estimator.Estimator(unverified).export_saved_model()
    columns = metadata.read(exported)["columns"]
    assert columns["zip"]["is_guess"] and "is_guess" not in columns["month"]
    declared = estimator.Estimator(codes(cells, "features[0].dtype=int"))
    assert sum(len(batch["y"]) for batch in declared.predict("test")) == 31


@pytest.mark.parametrize("forgets", [False, True])
def test_a_checkpoint_of_codes_as_integers_names_the_line_that_keeps_them(
    codes, forgets
):
    cells = ["007", "7", "8"]
    before = codes(cells, "features[0].dtype=int")
    estimator.Estimator(before).train()
    assert num_rows(before) == 2
    if forgets:
        forget_types(before)
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=r"`zip`, are strings now, .* for integers.*Set `dtype: int` for `zip`",
    ):
        estimator.Estimator(codes(cells)).train()
    estimator.Estimator(before).train()


def test_integers_of_csv_beyond_64_bits_name_the_type(codes):
    cells = ["7", "9223372036854775808", "18446744073709551615"]
    error = (
        r"row 1 .*'9223372036854775808' is not an integer of 64 bits\. Set `dtype: s"
    )
    for overrides in ((), ("features[0].dtype=int",)):
        with pytest.raises(ValueError, match=error):
            estimator.Estimator(codes(cells, *overrides)).train()
    config = codes(cells, "features[0].dtype=string")
    estimator.Estimator(config).train()
    assert num_rows(config) == 3
