"""`predict` reads files like the job does, in each dialect, row by row."""

import csv
import gzip
import json
import shutil
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from monolith_tf.cli import main
from monolith_tf.experiment.estimator import Estimator

CONFIG = """\
model_dir: {folder}/model
data:
  train: "{folder}/rows-*.csv.gz"
  test: "{folder}/rows-*.csv.gz"
  batch_size: 16
  delimiter: ";"
  list_delimiter: ","
  null_values: [NA, "-"]
  on_bad_row: skip
  weight: weight
features:
  - {{name: user, kind: id, dtype: int}}
  - {{name: place, kind: id, default: nowhere}}
  - {{name: history, kind: id_list, dtype: int, combiner: mean}}
  - {{name: words, kind: id_list, combiner: sum}}
  - {{name: price, kind: dense, default: 2.5}}
  - {{name: spot, kind: dense, dim: 2}}
labels: [click]
default_table: {{dim: 2, optimizer: {{name: adam, learning_rate: 0.1}}}}
model: {{name: dcn, params: {{label: click, num_cross_layers: 1, hidden_units: [4]}}}}
trainer: {{epochs: 2, checkpoint_every_steps: 100}}
export: {{verify_rows: 0}}
metrics: [auc]
"""
NULLS = ("", "NA", "-")
NAMES = ["session", "user", "place", "history", "words", "price", "spot", "click"]
NAMES += ["weight"]
BAD = (7, 50)  # A row whose user is not an integer, and one with too many cells.


def _cells(number, rng):
    """Returns a row of text, with `,` in lists."""
    history = ",".join(map(str, rng.integers(0, 12, rng.integers(0, 5))))
    words = ",".join(f"w{n}" for n in rng.integers(0, 9, rng.integers(1, 4)))
    return [
        f"{number:04}",
        "twelve" if number == BAD[0] else str(rng.integers(0, 20)),
        str(rng.choice(["Köln", "Paris|Lyon", "NA", "", "nan"])),
        str(rng.choice([history, "NA"], p=[0.9, 0.1])),
        words,
        str(rng.choice([f"{rng.normal():.3f}", "-"])),
        f"{rng.normal():.3f},{rng.normal():.3f}",
        str(rng.integers(0, 2)),
        "1.5",
        *(["too many"] if number == BAD[1] else []),
    ]


def _parsed(cells):
    """Returns a good row's values, None where one is missing."""
    row = dict(zip(NAMES, cells, strict=True))
    row = {name: None if cell in NULLS else cell for name, cell in row.items()}
    row["session"] = cells[0]
    row["user"] = int(row["user"])
    row["history"] = [int(x) for x in (row["history"] or "").split(",") if x]
    row["words"] = row["words"].split(",")
    row["price"] = None if row["price"] is None else float(row["price"])
    row["spot"] = [float(x) for x in row["spot"].split(",")]
    row["click"], row["weight"] = int(row["click"]), float(row["weight"])
    return row


def _write_csv(path, rows, *, delimiter=";", names=NAMES):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(rows)


def _write_records(path, rows, compression=None):
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in rows:
            features = {}
            for name, value in row.items():
                values = value if isinstance(value, list) else [value]
                if value is None:
                    continue
                if name in ("session", "place", "words"):
                    texts = [v.encode() for v in values]
                    feature = tf.train.Feature(bytes_list={"value": texts})
                elif name in ("price", "spot", "weight"):
                    feature = tf.train.Feature(float_list={"value": values})
                else:
                    feature = tf.train.Feature(int64_list={"value": values})
                features[name] = feature
            example = tf.train.Example(features={"feature": features})
            writer.write(example.SerializeToString())


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A trained and exported job: its folder, its good rows, its predictions."""
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    cells = [_cells(number, rng) for number in range(90)]
    for number, part in enumerate((cells[:40], cells[40:])):
        _write_csv(folder / "part.csv", part)
        content = (folder / "part.csv").read_bytes()
        (folder / f"rows-{number}.csv.gz").write_bytes(gzip.compress(content))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    estimator = Estimator(folder / "config.yaml")
    estimator.train()
    estimator.export_saved_model()
    clicks = np.concatenate([batch["click"] for batch in estimator.predict("test")])
    good = [row for number, row in enumerate(cells) if number not in BAD]
    assert len(clicks) == len(good)
    assert np.std(clicks) > 0.01
    return folder, good, clicks


@pytest.fixture
def call(capsys):
    def run(*arguments):
        capsys.readouterr()
        arguments = ["monolith-tf", "predict", *map(str, arguments), "--verbose"]
        status = main.main(main.parse(arguments))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def predict(call, tmp_path):
    """Returns the columns of predictions and the printed output."""

    def run(model, pattern, *arguments):
        output = tmp_path / "out.parquet"
        status, out, err = call(
            model, "--input", pattern, "--output", output, *arguments
        )
        assert status == 0, err
        return parquet.read_table(output).to_pydict(), out

    return run


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", ["model/export", "model", "config.yaml"])
def test_the_jobs_own_files(job, predict, model):
    folder, good, clicks = job
    found, out = predict(
        folder / model,
        folder / "rows-*.csv.gz",
        *("--batch-size", "7", "--key", "session", "--key", "click", "--key", "user"),
    )
    _close(found["click"], clicks)
    assert found["session"] == [row[0] for row in good]
    assert found["user"] == [int(row[1]) for row in good]
    assert found["key_click"] == [row[7] for row in good]
    assert list(found) == ["session", "key_click", "user", "click"]
    assert "88 predictions written to" in out
    assert "2 rows of the input were skipped, since `data.on_bad_row` is skip" in out


@pytest.mark.parametrize(
    "name", ["x.csv", "x.csv.zst", "x.tfrecord", "x.tfrecords.gz", "x.parquet"]
)
def test_files_of_other_kinds_without_labels(job, predict, tmp_path, name):
    folder, good, clicks = job
    path = tmp_path / name
    rows = [_parsed(row) for row in good]
    for row in rows:
        del row["click"], row["weight"]
    if "csv" in name:
        _write_csv(tmp_path / "plain", [row[:7] for row in good], names=NAMES[:7])
        with pa.output_stream(path, compression="detect") as stream:
            stream.write((tmp_path / "plain").read_bytes())
    elif "parquet" in name:
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=30)
    else:
        _write_records(path, rows, "GZIP" if name.endswith(".gz") else None)
    found, out = predict(folder / "model", path, "--key", "session", "--key", "place")
    _close(found["click"], clicks)
    assert found["session"] == [row[0] for row in good]
    assert found["place"] == [row["place"] for row in rows]
    assert "skipped" not in out


def test_a_name_with_the_characters_of_patterns(job, predict, tmp_path):
    folder, _, clicks = job
    shutil.copy(folder / "rows-0.csv.gz", tmp_path / "a[0].csv.gz")
    found, _ = predict(folder / "model", tmp_path / "a[0].csv.gz")
    _close(found["click"], clicks[:39])


def test_a_reader_of_the_jobs_own(job, predict, tmp_path, monkeypatch):
    folder, good, clicks = job
    reader = """\
        import json
        import numpy as np
        import pyarrow as pa
        import monolith_tf

        class Lines(monolith_tf.data.Reader):
            def schema(self, file):
                return {}

            def read(self, piece, columns):
                with open(piece.file) as lines:
                    table = pa.Table.from_pylist([json.loads(line) for line in lines])
                rows = np.arange(table.num_rows)
                yield monolith_tf.data.Block(table.select(list(columns)), rows)
        """
    (tmp_path / "lines_reader.py").write_text(textwrap.dedent(reader))
    text = "".join(json.dumps(_parsed(row)) + "\n" for row in good)
    (tmp_path / "x.lines").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found, _ = predict(
        folder / "model" / "export",
        "*.lines",
        *("data.reader=lines_reader:Lines", "--key", "session"),
    )
    _close(found["click"], clicks)
    assert found["session"] == [row[0] for row in good]


def test_what_is_read_otherwise_on_request(job, predict, call, tmp_path):
    folder, good, clicks = job
    path = tmp_path / "x.txt"
    rows = [["" if cell in NULLS else cell for cell in row[:7]] for row in good]
    _write_csv(path, rows, delimiter="\t", names=NAMES[:7])
    path.write_text(path.read_text().partition("\n")[2])
    changes = ["data.delimiter='\t'", f"data.column_names={NAMES[:7]}"]
    export = folder / "model" / "export"
    found, _ = predict(export, path, *changes, "data.format=csv")
    _close(found["click"], clicks)

    arguments = ["--output", tmp_path / "y.csv", "--input"]
    status, _, err = call(export, *arguments, path)
    assert status == 2
    assert "--input: the names of the files do not show one format" in err
    status, _, err = call(
        export, *arguments, folder / "rows-*.csv.gz", "data.on_bad_row=error"
    )
    assert status == 1
    assert "rows-0.csv.gz: row 7 (counting from 0): column `user`: 'twelve'" in err
    assert not (tmp_path / "y.csv").exists()
    for change, message in (
        ("data.batch_size=3", "`data.batch_size` does not change how files are read."),
        ("trainer.epochs=3", "`trainer` does not change how files are read. These do"),
        ("data.delimiter=ab", "`delimiter` must be one character."),
    ):
        status, _, err = call(export, *arguments, folder / "rows-*.csv.gz", change)
        assert status == 2
        assert message in err


def test_an_export_that_does_not_say_reads_as_0_1_0_did(job, predict, tmp_path):
    folder, good, _ = job
    (version,) = (folder / "model" / "export").iterdir()
    old = shutil.copytree(version, tmp_path / "old")
    file = old / "assets.extra" / "monolith_tf.json"
    content = json.loads(file.read_text())
    assert content.pop("reading")["delimiter"] == ";"
    file.write_text(json.dumps(content))

    path = tmp_path / "x.csv"
    rows = [_parsed(row) for row in good]
    # A missing number is NA; a missing string is an empty cell, read as "".
    wanted = [{**row, "place": row["place"] or ""} for row in rows]
    parquet.write_table(pa.Table.from_pylist(wanted), tmp_path / "wanted.parquet")
    cells = [
        [
            row["user"],
            row["place"],
            "|".join(map(str, row["history"])),
            "|".join(row["words"]),
            "NA" if row["price"] is None else row["price"],
            "|".join(map(str, row["spot"])),
        ]
        for row in rows
    ]
    _write_csv(path, cells, delimiter=",", names=NAMES[1:7])
    expected, _ = predict(folder / "model", tmp_path / "wanted.parquet")
    found, _ = predict(old, path)
    _close(found["click"], expected["click"])


def test_what_cannot_be_read(job, call, tmp_path):
    folder, _, _ = job
    model, output = folder / "model", ["--output", tmp_path / "y.csv"]
    status, _, err = call(
        model, "--input", folder / "rows-0.csv.gz", *output, "--key", "sesion"
    )
    assert status == 1
    assert "no column `sesion` for the key `sesion`" in err
    assert "Did you mean `session`?" in err
    _write_csv(tmp_path / "bad.csv", [["x"] * 9])
    status, _, err = call(model, "--input", tmp_path / "bad.csv", *output)
    assert status == 1
    assert "There are no rows to predict in" in err
    assert "all 1 were skipped as bad" in err
    status, _, err = call(tmp_path, "--input", tmp_path / "bad.csv", *output)
    assert status == 2
    shutil.copy(folder / "config.yaml", tmp_path)
    status, _, err = call(tmp_path, "--input", tmp_path / "bad.csv", *output)
    assert status == 2
    assert f"The job has no export in {tmp_path}/export. Write one" in err
    assert not (tmp_path / "y.csv").exists()
