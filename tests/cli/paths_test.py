"""No sub-command accepts a URL as a path."""

import pytest

from monolith_tf.cli import main


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("CONFIG", "train gs://b/c.yaml"),
        ("CONFIG", "launch gs://b/c.yaml"),
        ("--checkpoint", "evaluate c.yaml --checkpoint gs://b/c"),
        ("--output", "evaluate c.yaml --output gs://b/c"),
        ("--output", "export c.yaml --output gs://b/c"),
        ("--checkpoint", "export c.yaml --checkpoint gs://b/c"),
        ("SAVED_MODEL", "predict gs://b/c --input a --output b"),
        ("--input", "predict a --input gs://b/c --output b"),
        ("--output", "predict a --input b --output gs://b/c"),
        ("EXPORT_DIR", "serve gs://b/c"),
        ("MODEL_DIR", "publish gs://b/c --to h:1"),
        ("CONFIG", "check gs://b/c.yaml"),
        ("PATH", "inspect gs://b/c"),
        ("--write-config", "inspect a --write-config gs://b/c"),
    ],
)
def test_arguments_of_commands(name, arguments, capsys):
    parsed = main.parse(["monolith-tf", *arguments.split()])
    assert main.main(parsed) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: `{name}` must be a path on this machine; URLs ")
