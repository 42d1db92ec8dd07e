"""Rows of another job, or of another branch of the same job, reach no server."""

import shutil

import pytest

from monolith_tf.cli import main
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import server as server_lib
from monolith_tf.testing import small_job

_OVERRIDES = (
    "trainer.epochs=null",
    "trainer.deterministic=false",
    "trainer.eval_every_epochs=null",
    "trainer.checkpoint_every_steps=null",
    "trainer.summaries=false",
    "export.spare_rows=400",
    "export.verify_rows=0",
)


class _Jobs:
    """Jobs of one config, and a server of the first one's export."""

    def __init__(self, folder, capsys):
        self.folder = folder
        self._config = small_job.write(folder, rows=640)
        self._capsys = capsys
        self.train("first", 20)
        export = folder / "export"
        assert self._call("export", "first", "--output", export)[0] == 0
        self._server = server_lib.ModelServer(export, port=0)

    def __enter__(self):
        self._server.__enter__()
        return self

    def __exit__(self, *exception):
        self._server.__exit__(*exception)

    def train(self, name, max_steps, *overrides):
        status, _, err = self._call(
            "train", name, f"trainer.max_steps={max_steps}", *overrides
        )
        assert status == 0, err

    def publish(self, name):
        """Returns the exit code, the steps in the table, and the errors."""
        to = f"127.0.0.1:{self._server.port}"
        arguments = ["monolith-tf", "publish", str(self.folder / name), "--to", to]
        status = main.main(main.parse(arguments))
        out, err = self._capsys.readouterr()
        return status, out.splitlines()[3].split()[2:4] if out else [], err

    def _call(self, command, name, *arguments):
        model_dir = f"model_dir={self.folder / name}"
        words = [command, self._config, model_dir, *_OVERRIDES, *arguments]
        status = main.main(main.parse(["monolith-tf", *map(str, words)]))
        return status, *self._capsys.readouterr()


@pytest.fixture
def jobs(tmp_path, capsys):
    with _Jobs(tmp_path, capsys) as made:
        yield made


@pytest.fixture
def sent(monkeypatch):
    """The number of rows in each update request that the server received."""
    found = []
    run = model_lib.Model.run

    def spy(self, key, inputs, outputs=()):
        if key == "update_embeddings":
            found.append(len(inputs["ids"]))
        return run(self, key, inputs, outputs)

    monkeypatch.setattr(model_lib.Model, "run", spy)
    return found


def test_rows_of_another_job_or_line_are_refused(jobs, sent):
    # The same config and data, and another seed.
    jobs.train("other", 25, "seed=4")
    status, steps, err = jobs.publish("other")
    assert (status, steps) == (1, [])
    assert (
        "serves the model of another job, or of one that trained on after this" in err
    )
    assert sent == [0]  # It only asked.

    jobs.train("first", 40)
    assert jobs.publish("first") == (0, ["20", "40"], "")
    assert sum(sent) > 0

    # Back to step 20 in a copy, which trains on from there.
    del sent[:]
    back = jobs.folder / "back"
    shutil.copytree(jobs.folder / "first", back)
    shutil.rmtree(back / "checkpoints" / "ckpt-00000040")
    jobs.train("back", 30)
    status, steps, err = jobs.publish("back")
    assert (status, steps) == (1, [])
    assert "has newer rows than the step from which this job continues" in err
    assert "Export a new version: `monolith-tf export CONFIG`." in err
    assert sent == [0]

    # The branch that is served trains on.
    jobs.train("first", 50)
    assert jobs.publish("first") == (0, ["40", "50"], "")

    # Of two copies that both train on, the one that is served first goes on. A moved
    # folder is still the same job.
    shutil.copytree(jobs.folder / "first", jobs.folder / "copy")
    (jobs.folder / "first").rename(jobs.folder / "moved")
    jobs.train("moved", 60)
    jobs.train("copy", 65)
    assert jobs.publish("moved") == (0, ["50", "60"], "")
    del sent[:]
    status, steps, err = jobs.publish("copy")
    assert (status, steps) == (1, [])
    assert "has newer rows than the step from which this job continues" in err
    assert sent == [0]
