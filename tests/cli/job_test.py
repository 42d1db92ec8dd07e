"""A whole job on the command line: train, evaluate, export, predict, inspect."""

import json

import pytest
from pyarrow import parquet

from monolith_tf.cli import main
from monolith_tf.testing import small_job


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job") / "small"
    small_job.write(folder)
    return folder


@pytest.fixture
def call(capsys, folder):
    def run(command, *arguments):
        config = [str(folder / "config.yaml"), "trainer.deterministic=false"]
        if command in ("predict", "inspect"):
            config = []
        arguments = ["monolith-tf", command, *config, *map(str, arguments), "--verbose"]
        status = main.main(main.parse(arguments))
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return run


def test_the_commands_of_a_job(call, folder):
    out = call("train", "trainer.epochs=1")
    assert out.index("Features\n") < out.index("Embedding tables\n")
    assert out.index("Embedding tables\n") < out.index("Last evaluation\n")
    assert "Embedding tables after training\n" in out
    assert f"checkpoints and metrics are in {folder}/model." in out
    assert (folder / "model" / "config.yaml").exists()

    scored = folder / "scored.json"
    out = call("evaluate", "--split", "test", "--output", scored)
    assert out.startswith("Evaluation on the test split\ntask ")
    lines = (folder / "model" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    metrics = json.loads(scored.read_text())
    assert metrics["click/auc"] == last["click/auc"]
    assert f"{metrics['click/auc']:.5f}" in out

    out = call("inspect", folder / "model")
    assert f"Checkpoint {folder}/model/checkpoints/ckpt-" in out
    assert "Embedding tables\n" in out

    out = call("export", "--output", folder / "export")
    (version,) = (folder / "export").iterdir()
    saved, size, difference = out.splitlines()
    assert saved == f"SavedModel: {version}"
    assert size.startswith("size: ")
    assert difference == "largest difference of a prediction on real rows: 0"
    assert "Signature serving_default (predict)" in call("inspect", version)

    answers = folder / "answers.parquet"
    out = call(
        "predict",
        folder / "export",
        "--input",
        folder / "eval.parquet",
        "--output",
        answers,
    )
    assert f"500 predictions written to {answers}." in out
    assert out.startswith(f"First predictions of {version}\n")
    table = parquet.read_table(answers)
    assert table.column_names == ["click"]
    assert table.num_rows == 500
    for number, line in enumerate(out.splitlines()[3:6]):
        row, prediction = line.split()
        assert row == str(number)
        assert float(prediction) == pytest.approx(
            table["click"][number].as_py(), abs=1e-5
        )


def test_check_builds_the_model_when_asked(call):
    out = call("check", "--model")
    assert "Dense variables\n" in out
    assert "The model is built; it has " in out


def test_evaluating_before_training_says_what_to_do(folder, capsys):
    arguments = ["evaluate", str(folder / "config.yaml"), f"model_dir={folder}/none"]
    status = main.main(main.parse(["monolith-tf", *arguments, "--verbose"]))
    assert status == 1
    assert capsys.readouterr().err.endswith(
        f"error: There is no checkpoint in {folder}/none/checkpoints. Train first: "
        "`monolith-tf train CONFIG`.\n"
    )
