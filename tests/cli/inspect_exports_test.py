"""What `inspect` and `check` print about tables of every kind of ids, in real jobs."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from absl import logging
from pyarrow import parquet

from monolith_tf import config as config_lib
from monolith_tf.cli import main
from monolith_tf.experiment import estimator

CONFIG = """\
model_dir: {folder}/export_model
data: {{train: {folder}/train.parquet, test: {folder}/train.parquet, batch_size: 32}}
features:
  - {{name: exact, kind: id}}
  - {{name: hashed, kind: id}}
  - {{name: item, kind: id}}
  - {{name: user, kind: id}}
  - {{name: place, kind: id}}
  - {{name: still, kind: id}}
labels: [click]
tables:
  - {{name: exact, dim: 4, large_integers: exact}}
  - {{name: hashed, dim: 4, large_integers: hash}}
  - {{name: item, dim: 4}}
  - {{name: user, dim: 4}}
  - name: place
    slices: [{{name: bias, dim: 1, compressor: fp16}}, {{name: vec, dim: 3}}]
  - name: still
    dim: 2
    initializer: {{name: zeros}}
    optimizer: {{name: sgd, learning_rate: 0.0}}
model:
  blocks:
    - {{name: deep, layer: MLP, inputs: [all], args: {{output_dims: [1]}}}}
  heads: [{{label: click, inputs: [deep]}}]
trainer: {{epochs: 1, summaries: false}}
export: {{verify_rows: 0}}
"""
ROWS = 96


def columns():
    rng = np.random.default_rng(5)
    large = rng.integers(-(2**63), 2**63 - 1, 40)
    return {
        "exact": rng.choice([*large, -1, 0, 3, 2**48], ROWS),
        "hashed": rng.choice([*large[:20], 7, 8], ROWS),
        "item": rng.integers(0, 50, ROWS),
        "user": rng.integers(0, 20, ROWS),
        "place": [f"p{i}" for i in rng.integers(0, 30, ROWS)],
        "still": rng.integers(0, 9, ROWS),
        "click": rng.integers(0, 2, ROWS),
    }


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder with a trained job and its exports, without and with spare rows."""
    folder = tmp_path_factory.mktemp("job")
    parquet.write_table(pa.table(columns()), folder / "train.parquet")
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    for name, spare in (("export", 0), ("spare", 4)):
        config = config_lib.load_config(path, [f"export.spare_rows={spare}"])
        made = estimator.Estimator(config)
        if not spare:
            made.train()
        made.export_saved_model(folder / name)
    return folder


def call(capsys, *arguments):
    arguments = ["monolith-tf", *map(str, arguments), "--verbose"]
    status = main.main(main.parse(arguments))
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def listed(out, title="Embedding tables"):
    """Name -> column -> cell of a printed table."""
    lines = out.partition(f"{title}\n")[2].partition("\n\n")[0].splitlines()
    starts = [0]
    for place in range(2, len(lines[1])):
        if lines[1][place - 2 : place] == "  ":
            starts.append(place)
    cells = [
        [
            line[start:end].strip()
            for start, end in zip(starts, [*starts[1:], None], strict=True)
        ]
        for line in [lines[0], *lines[2:]]
    ]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[1:]}


DISTINCT = {name: len(set(values)) for name, values in columns().items()}
KINDS = {
    "exact": "integers, all of 64 bits",
    "hashed": "integers, hashed from 2^48 on",
    "item": "integers, below 2^48",
    "user": "integers, below 2^48",
    "place": "strings",
    "still": "integers, below 2^48",
}


def test_a_checkpoint_lists_ids_and_what_they_are_made_of(job, capsys):
    found = listed(call(capsys, "inspect", job / "export_model"))
    assert {name: cells["made of"] for name, cells in found.items()} == KINDS
    assert {name: int(cells["ids"]) for name, cells in found.items()} == {
        name: DISTINCT[name] for name in KINDS
    }


@pytest.mark.parametrize("name", ["export", "spare"])
def test_an_export_has_the_ids_of_the_checkpoint(job, capsys, name):
    out = call(capsys, "inspect", job / name)
    found = listed(out)
    assert {name: cells["made of"] for name, cells in found.items()} == KINDS
    for table in KINDS:
        is_zero = table == "still"
        left_out = DISTINCT[table] if is_zero else 0
        assert int(found[table]["left out"]) == left_out
        assert int(found[table]["ids"]) == DISTINCT[table] - left_out
    assert found["place"]["slices"] == "bias: 1, vec: 3"
    assert found["place"]["stored as"] == "fp16, fp32"
    assert found["place"]["size"] == f"{DISTINCT['place'] * (2 + 3 * 4)} B"
    assert "Ids are left out if their row is all zeros" in out


@pytest.mark.parametrize("name", ["export", "spare"])
def test_ids_are_counted_where_an_export_does_not_say_them(job, capsys, tmp_path, name):
    path = shutil.copytree(job / name, tmp_path / "copy")
    (file,) = path.glob("*/assets.extra/monolith_tf.json")
    content = json.loads(file.read_text())
    for table in content["tables"].values():
        del table["rows"], table["dropped_rows"], table["id_type"]
    file.write_text(json.dumps(content))
    found = listed(call(capsys, "inspect", path))
    ids = {name: int(cells["ids"]) for name, cells in found.items()}
    expected = {name: DISTINCT[name] for name in KINDS} | {"still": 0}
    if name == "export":  # They share a list of places.
        expected["item, user"] = expected.pop("item") + expected.pop("user")
    assert ids == expected


def test_keys_of_a_model_that_is_no_export_are_no_slots(job, capsys, tmp_path):
    path = shutil.copytree(job / "export", tmp_path / "copy")
    (file,) = path.glob("*/assets.extra/monolith_tf.json")
    file.unlink()
    out = call(capsys, "inspect", path)
    assert "Embedding tables" not in out
    found = listed(out, "Hash tables of integers")
    counts = sorted(int(cells["keys"]) for cells in found.values())
    assert DISTINCT["exact"] in counts


def test_a_job_says_that_exact_is_kept(job, capsys, monkeypatch):
    path = job / "config.yaml"
    here = f"model_dir={job}/export_model"
    without = ["tables[0].large_integers=null", here]
    found = listed(call(capsys, "check", path, *without))
    assert found["exact"]["ids"] == KINDS["exact"]
    there = ["tables[0].large_integers=null", f"model_dir={job}/none"]
    found = listed(call(capsys, "check", path, *there))
    assert found["exact"]["ids"] == "integers, below 2^48"
    lines = []
    monkeypatch.setattr(logging, "info", lambda line, *args: lines.append(line % args))
    estimator.Estimator(config_lib.load_config(path, without)).evaluate("test")
    line = "Table `exact` keeps `large_integers: exact` from its checkpoint, since the "
    assert f"{line}config does not set it: all 64 bits of integers count." in lines
