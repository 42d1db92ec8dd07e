"""A job whose reader, metrics and function are files beside its config."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from monolith_tf.embedding.saved import sealed

ROOT = pathlib.Path(__file__).parents[2]
FILES = pathlib.Path(__file__).parent / "testdata" / "own_classes"

# Runs the command, then prints whether it imported TensorFlow.
COMMAND = (
    "import sys; from monolith_tf.cli import main; "
    "status = main.main(main.parse(['monolith-tf', *sys.argv[1:]])); "
    "print('tensorflow' in sys.modules); sys.exit(status)"
)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "eval"):
        rows = [{"user": u, "click": u % 2} for u in rng.integers(0, 20, 64).tolist()]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    (tmp_path / "types.csv").write_text("user,click\n1,1\n")
    for path in FILES.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


def run(folder, command, *arguments):
    """Runs the command in a folder that is not on `sys.path`, as the script does."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, command, "config.yaml", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def test_a_job_with_a_reader_and_metrics_of_its_own(folder):
    done = run(folder, "check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("config.yaml is fine.\nFalse\n")

    done = run(folder, "train")
    assert done.returncode == 0, done.stderr
    lines = (folder / "model" / "metrics.jsonl").read_text().splitlines()
    scores = [one for one in map(json.loads, lines) if one["phase"] == "eval"]
    assert len(scores) == 3
    users = {
        json.loads(line)["user"]
        for line in (folder / "eval.jsonl").read_text().splitlines()
    }
    assert {one["click/my_metric:Users"] for one in scores} == {len(users)}
    distances = {one["step"]: one["click/my_metric:Distance"] for one in scores}
    best = min(distances, key=distances.__getitem__)
    assert distances[best] == distances[12] < distances[4]
    (mark,) = (folder / "model" / "checkpoints").glob("best*.json")
    kept = sealed.unseal(mark)[0]
    files = kept.pop("evaluated_on")["files"]
    assert [pathlib.Path(file["path"]).name for file in files] == ["eval.jsonl"]
    assert kept == {
        "checkpoint": f"ckpt-{best:08}",
        "metric": "click/my_metric:Distance",
        "value": distances[best],
    }


def test_a_function_of_its_own_is_looked_for_by_check(folder):
    changes = ["data={input_fn: my_data:batches}", "trainer.eval_every_steps=null"]
    changes += ["trainer.keep_best=null"]
    done = run(folder, "check", *changes)
    assert done.returncode == 0, done.stderr
    done = run(folder, "check", *changes, "data.input_fn=my_data:batch")
    assert done.returncode == 2
    assert "`data.input_fn`: module `my_data` has no `batch`." in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.reader=my_readr:A", "`data.reader`: there is no module `my_readr`."),
        ("data.reader=my_reader:A", "`data.reader`: module `my_reader` has no `A`."),
        ("metrics=[my_metric:A]", "`metrics`: module `my_metric` has no `A`."),
        ("metrics=[my_metric:function]", "'my_metric:function' is not a class."),
        ("metrics=[my_metric:Deaf]", "'my_metric:Deaf' has no method `update`."),
        ("metrics=[my_metric:Wanting]", "missing a required argument: 'k'"),
        (
            "metrics[1]=my_metric:Silent trainer.keep_best=my_metric:Silent",
            "not define this. Set `hi",
        ),
    ],
)
def test_what_check_says_of_own_names(folder, change, message):
    done = run(folder, "check", *change.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_that_lacks_another_is_not_called_missing(folder):
    (folder / "my_reader.py").write_text("import my\n")
    done = run(folder, "check")
    assert "No module named 'my'" in done.stderr
    assert "there is no module" not in done.stderr
