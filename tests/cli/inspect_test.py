import hashlib
import json

import pytest

from monolith_tf import config as config_lib
from monolith_tf.cli import errors
from monolith_tf.cli import inspect
from monolith_tf.cli import main
from monolith_tf.embedding.saved import sealed


def _slice(name, dim, optimizer, state_dim):
    return {"name": name, "dim": dim, "optimizer": optimizer, "state_dim": state_dim}


def write_checkpoint(folder, step):
    path = folder / f"ckpt-{step:08d}"
    path.mkdir(parents=True)
    manifest = {
        "format": 1,
        "step": step,
        "state": {},
        "variables": {
            "model/kernel": [[3, 4], "float32"],
            "optimizers/0/_variables/1": [[3, 4], "float32"],
        },
        "embedding": {
            "groups": [
                {
                    "name": "g",
                    "slices": [
                        _slice("bias", 1, "ftrl", 2),
                        _slice("vec", 3, "adagrad", 3),
                    ],
                }
            ],
            "tables": [
                {"name": "user", "slot": 2, "group": "g", "counters": {"rows": 1024}}
            ],
        },
        "files": {"dense.data": 2048, "dense.index": 1024},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def call(capsys, path, *options):
    status = main.main(main.parse(["monolith-tf", "inspect", str(path), *options]))
    return status, *capsys.readouterr()


def test_the_newest_checkpoint_of_a_model_dir(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    for step in (900, 20_000, 10_000):
        newest = write_checkpoint(folder, step)
        if step == 20_000:
            expected = newest
    assert inspect.find_checkpoint(tmp_path) == expected
    assert inspect.find_checkpoint(folder) == expected
    assert inspect.find_checkpoint(expected) == expected
    status, out, _ = call(capsys, tmp_path)
    assert status == 0
    assert out.startswith(f"Checkpoint {expected}\nstep: 20000\nsize: 3.0 KiB\n")
    assert "model/kernel  [3, 4]  float32" in out
    assert out.endswith("Variables of dense optimizers, not listed: 1.\n")
    printed = [" ".join(line.split()) for line in out.splitlines()]
    assert "user 2 - bias: 1, vec: 3 ftrl, adagrad 1,024 36.0 KiB" in printed


def test_verify_names_what_is_damaged(tmp_path, capsys):
    path = write_checkpoint(tmp_path, 7)
    (path / "dense.data").write_bytes(b"short")
    status, out, error = call(capsys, path, "--verify")
    assert status != errors.DONE
    assert "dense.data is damaged: it should have 2048 bytes, but has 5" in out + error
    (path / "dense.data").unlink()
    status, out, error = call(capsys, path, "--verify")
    assert status != errors.DONE
    assert f"{path / 'dense.data'} is missing." in out + error


def test_verify_says_what_was_written(tmp_path, capsys):
    path = write_checkpoint(tmp_path, 7)
    content = b"values"
    (path / "dense.data").write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = {"dense.data": len(content)}
    manifest["checksums"] = {"dense.data": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(sealed.seal(manifest))
    status, out, _ = call(capsys, path, "--verify")
    assert status == errors.DONE
    assert "All 1 files match their checksums." in out


def test_what_a_search_has_found(tmp_path, capsys):
    path = write_checkpoint(tmp_path, 5) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["state"]["search"] = {
        "gates": {"user": {"kept": 8, "width": 16}, "item": {"kept": 0, "width": 32}}
    }
    path.write_text(json.dumps(manifest))
    status, out, _ = call(capsys, path.parent)
    assert status == 0
    table = out.partition("not listed: 1.\n\n")[2]
    assert [line.split() for line in table.splitlines() if line] == [
        ["Architecture", "found"],
        ["layer", "feature", "columns", "kept", "of"],
        ["-----", "-------", "------------", "--"],
        ["gates", "user", "8", "16"],
        ["gates", "item", "0", "32"],
    ]


_CONFIG = """\
model_dir: runs/a
data: {format: synthetic, batch_size: 8}
features: [{name: user, kind: id}, {name: item, kind: id}, {name: age, kind: dense}]
labels: [click]
tables: [{name: user, dim: 16}, {name: item, dim: 32}]
model:
  blocks:
    - name: gates
      layer: NASGatingLayer
      inputs: [user, item]
      args: {segment_names: [user, item], segment_sizes: [16, 32]}
    - {name: tower, layer: MLP, inputs: [gates, age], args: {output_dims: [1]}}
  heads: [{label: click, inputs: tower}]
"""


def test_the_config_of_what_a_search_has_found(tmp_path, capsys):
    path = write_checkpoint(tmp_path, 5) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["state"]["search"] = {
        "gates": {"user": {"kept": 8, "width": 16}, "item": {"kept": 0, "width": 32}}
    }
    path.write_text(json.dumps(manifest))
    path.with_name("config.yaml").write_text(_CONFIG)
    written = tmp_path / "found.yaml"
    status, out, _ = call(capsys, path.parent, f"--write-config={written}")
    assert status == 0
    assert out.endswith(f"\nWrote {written}\n")
    config = config_lib.load_config(written)
    assert [feature.name for feature in config.features] == ["user", "age"]
    assert [(table.name, table.dim) for table in config.tables] == [("user", 8)]


def test_a_config_is_written_of_a_search_only(tmp_path, capsys):
    path = write_checkpoint(tmp_path, 5)
    status, _, err = call(capsys, path, "--write-config=a.yaml")
    assert status == errors.WRONG_USE
    assert err == f"error: {path} holds no search for widths.\n"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    status, _, err = call(capsys, tmp_path / "model", "--write-config=a.yaml")
    assert status == errors.WRONG_USE
    assert err == (
        f"error: `--write-config` needs a checkpoint, and {tmp_path}/model has none.\n"
    )


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"step": 1, "files": 3}'])
def test_a_damaged_manifest(tmp_path, capsys, text):
    (tmp_path / "manifest.json").write_text(text)
    status, _, err = call(capsys, tmp_path)
    assert status == errors.FAILED
    assert err.startswith(f"error: {tmp_path}/manifest.json is damaged: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("make", [True, False])
def test_a_path_that_is_nothing_of_ours(tmp_path, capsys, make):
    path = tmp_path / "x"
    if make:
        path.mkdir()
    status, _, err = call(capsys, path)
    assert status == errors.WRONG_USE
    assert err == (
        f"error: {path} is neither a SavedModel, nor a checkpoint, nor a model_dir "
        "with checkpoints.\n"
        if make
        else f"error: {path} does not exist.\n"
    )
