import json

import pytest

from monolith_tf.cli import errors
from monolith_tf.cli import inspect
from monolith_tf.cli import main


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


def call(capsys, path):
    status = main.main(main.parse(["monolith-tf", "inspect", str(path)]))
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
    assert "user 2 bias: 1, vec: 3 ftrl, adagrad 1,024 36.0 KiB" in printed


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
