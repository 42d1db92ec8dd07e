import argparse
import json

import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import csv
from pyarrow import parquet

from monolith_tf.cli import errors
from monolith_tf.cli import main
from monolith_tf.cli import predict
from monolith_tf.cli import saved_model
from monolith_tf.export import metadata


class Model(tf.Module):
    """Computes two outputs from three raw features, with an export's signature."""

    @tf.function
    def _named(self, age, user, history, history_length):
        lists = tf.RaggedTensor.from_tensor(history, lengths=history_length)
        return self._answer(age, user, lists)

    @tf.function
    def _examples(self, examples):
        parsed = tf.io.parse_example(
            examples,
            {
                "age": tf.io.FixedLenFeature([], tf.float32, 40.0),
                "user": tf.io.FixedLenFeature([], tf.string),
                "history": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
            },
        )
        return self._answer(parsed["age"], parsed["user"], parsed["history"])

    def _answer(self, age, user, history):
        total = tf.cast(tf.reduce_sum(history, axis=1), tf.float32)
        length = tf.cast(tf.strings.length(user), tf.float32)
        return {"click": age + total, "parts": tf.stack([length, total], axis=1)}

    def save(self, path):
        named = self._named.get_concrete_function(
            age=tf.TensorSpec([None], tf.float32, name="age"),
            user=tf.TensorSpec([None], tf.string, name="user"),
            history=tf.TensorSpec([None, None], tf.int64, name="history"),
            history_length=tf.TensorSpec([None], tf.int64, name="history_length"),
        )
        examples = self._examples.get_concrete_function(
            tf.TensorSpec([None], tf.string, name="examples")
        )
        signatures = {"serving_default": named, "serialized_example": examples}
        tf.saved_model.save(self, str(path), signatures=signatures)


ROWS = pa.table(
    {
        "user": ["a", "bcd", "", "ef"],
        "unread": [1, 2, 3, 4],
        "age": pa.array([30, 40, 50, 60], pa.int32()),
        "history": pa.array([[1, 2], [], [3], None], pa.list_(pa.int32())),
    }
)
COLUMNS = {
    "age": {"dtype": "float32", "is_list": False, "length": None, "default": 40.0},
    "user": {"dtype": "string", "is_list": False, "length": None, "default": None},
    "history": {"dtype": "int64", "is_list": True, "length": None, "default": None},
}
CLICK = [33.0, 40.0, 53.0, 60.0]
PARTS = [[1.0, 3.0], [3.0, 0.0], [0.0, 3.0], [2.0, 0.0]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("export")
    Model().save(path / "7")
    metadata.write(path / "7", {"columns": COLUMNS, "tables": {}})
    (path / ".tmp-8").mkdir()
    return path


@pytest.fixture
def predict_rows(model, tmp_path):
    def run(rows, output="out.parquet", batch_size=3, keys=()):
        source = rows
        if isinstance(rows, pa.Table):
            source = tmp_path / "in.parquet"
            parquet.write_table(rows, source)
        arguments = argparse.Namespace(
            saved_model=str(model),
            input=str(source),
            output=str(tmp_path / output),
            batch_size=batch_size,
            key=list(keys),
            overrides=[],
            verbose=True,
        )
        assert predict.run(arguments) == errors.DONE
        return tmp_path / output

    return run


def test_parquet(predict_rows):
    answers = parquet.read_table(predict_rows(ROWS)).to_pydict()
    assert answers == {"click": CLICK, "parts": PARTS}


def test_json_lines(predict_rows):
    lines = predict_rows(ROWS, "new/out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"click": c, "parts": p} for c, p in zip(CLICK, PARTS, strict=True)
    ]


def test_csv_in_and_out(predict_rows, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text('user,age,history\na,30,1|2\nbcd,40,\n"",50,3\nef,60,\n')
    answers = csv.read_csv(predict_rows(source, "out.csv")).to_pydict()
    assert answers["click"] == CLICK
    assert [json.loads(part) for part in answers["parts"]] == PARTS


def test_truth_values_among_numbers(predict_rows, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("user,age,history\na,30,1|2\nbcd,True,3\nef,60,true\n")
    with pytest.raises(ValueError, match=r"in\.csv: row 1 .*`age`: 'True' is not a nu"):
        predict_rows(source)
    source.write_text("user,age,history\na,30,1|2\nef,60,true\n")
    with pytest.raises(ValueError, match=r"in\.csv: row 1 .*`history`: 'true' is not"):
        predict_rows(source)


def test_dictionary_columns(predict_rows):
    rows = ROWS.set_column(0, "user", ROWS["user"].dictionary_encode())
    answers = parquet.read_table(predict_rows(rows)).to_pydict()
    assert answers["click"] == CLICK


def test_a_missing_value_takes_the_models_default(predict_rows):
    ages = pa.array([30, None, 50, None], pa.int64())
    rows = ROWS.set_column(2, "age", ages)
    answers = parquet.read_table(predict_rows(rows)).to_pydict()
    assert answers["click"] == [33.0, 40.0, 53.0, 40.0]


def test_a_missing_value_without_a_default(predict_rows, model, tmp_path):
    rows = ROWS.set_column(0, "user", pa.array(["a", "b", "c", None]))
    with pytest.raises(
        ValueError,
        match=r"in\.parquet: row 3 \(counting from 0\): no value in column `user`",
    ):
        predict_rows(rows, batch_size=2)
    assert list(tmp_path.glob("*out*")) == []


def test_a_saved_model_that_says_nothing_of_itself(tmp_path):
    Model().save(tmp_path / "model")
    parquet.write_table(ROWS, tmp_path / "in.parquet")
    arguments = ["--input", tmp_path / "in.parquet", "--output", tmp_path / "out.jsonl"]
    arguments = ["monolith-tf", "predict", tmp_path / "model", *arguments, "--verbose"]
    assert main.main(main.parse([*map(str, arguments)])) == errors.DONE
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["click"] for line in lines] == CLICK


def test_a_missing_column(predict_rows, model):
    rows = ROWS.rename_columns(["usr", "unread", "age", "history"])
    with pytest.raises(
        ValueError, match=r"has no column `user` for .*in\.parquet.* Did you mean `usr`"
    ):
        predict_rows(rows)


def test_a_column_of_another_type(predict_rows):
    rows = ROWS.set_column(2, "age", pa.array(["x", "y", "z", "z"]))
    with pytest.raises(
        ValueError, match=r"in\.parquet: column `age` holds string and cannot be read "
    ):
        predict_rows(rows)


def test_a_damaged_file(predict_rows, tmp_path):
    source = tmp_path / "in.parquet"
    source.write_text("no parquet")
    with pytest.raises(ValueError, match=r"in\.parquet: "):
        predict_rows(source)


def test_files_that_cannot_be_meant(predict_rows, tmp_path):
    (tmp_path / "in.txt").write_text("user\na\n")
    with pytest.raises(
        errors.UsageError,
        match=r"--input: the names of the files do not show one format",
    ):
        predict_rows(tmp_path / "in.txt")
    with pytest.raises(
        errors.UsageError, match=r"--input: no file matches '.*in\.csv'"
    ):
        predict_rows(tmp_path / "in.csv")
    (tmp_path / "in.csv").mkdir()
    with pytest.raises(errors.UsageError, match=r"--input: .*in\.csv \(a folder\)\."):
        predict_rows(tmp_path / "*.csv")
    with pytest.raises(
        errors.UsageError, match=r"--output: the name must end in \.parquet, \.csv, "
    ):
        predict_rows(ROWS, "out.txt")


def test_which_saved_model_is_meant(model, tmp_path):
    newest = model / "7"
    assert saved_model.find(model) == newest
    assert saved_model.find(newest) == newest
    with pytest.raises(errors.UsageError, match="is not a SavedModel: it holds"):
        saved_model.find(tmp_path)
    with pytest.raises(errors.UsageError, match="nowhere does not exist"):
        saved_model.find(tmp_path / "nowhere")


def test_inspect_tells_the_signatures(model, capsys):
    arguments = main.parse(["monolith-tf", "inspect", str(model), "--verbose"])
    assert main.main(arguments) == errors.DONE
    text = capsys.readouterr().out
    assert f"SavedModel {model / '7'}" in text
    assert "Signature serving_default (predict)" in text
    assert "input   history_length  int64    [batch]" in text
    assert "output  parts           float32  [batch, 2]" in text


def test_inspect_of_a_damaged_file(tmp_path, capsys):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    arguments = main.parse(["monolith-tf", "inspect", str(tmp_path)])
    assert main.main(arguments) == errors.FAILED
    assert "saved_model.pb is damaged." in capsys.readouterr().err
