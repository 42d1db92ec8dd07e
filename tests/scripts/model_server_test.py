"""Runs `scripts/check_model_server`, with `monolith-tf serve` as the model server."""

import os
import pathlib
import subprocess
import sys

import pytest

from monolith_tf.export import saved_model
from monolith_tf.testing import small_network

_MAIN = (
    pathlib.Path(__file__).resolve().parents[2] / "scripts" / "model_server" / "main.py"
)
_KINDS = ("plain", "batching", "tls")

# Records a model server's flags, and starts `monolith-tf serve` with equivalent ones.
_SERVER = """\
#!{python}
import os, pathlib, sys
flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
notes = pathlib.Path({notes!r})
notes.write_text(pathlib.Path(flags.pop("batching_parameters_file")).read_text())
assert flags.pop("enable_batching") == "true"
arguments = [flags.pop("model_base_path"), "--port", flags.pop("port")]
arguments += ["--rest-port", flags.pop("rest_api_port")]
arguments += ["--name", flags.pop("model_name")]
assert not flags, flags
os.execv({python!r}, [{python!r}, "-m", "monolith_tf", "serve", *arguments])
"""


def _check(*arguments, timeout=600):
    command = [sys.executable, str(_MAIN), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False
    )


def _program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    weights = {"user": {1: [1, 2, 3]}, "item": {2: [3, 4, 5]}}
    saved_model.export(
        small_network.make(),
        small_network.COLUMNS,
        folder,
        rows=lambda: small_network.rows(weights),
        sample=small_network.sample(
            [1, 5, 1], [[2], [], [2, 2, 3]], [2, 2, 6], [0.5] * 3
        ),
    )
    return folder


@pytest.mark.slow
def test_a_job_is_served_and_kept_up_to_date():
    done = _check("--stand-in")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "All steps passed."
    assert all(line.endswith(" ... ok") for line in lines[:-1])
    for kind in _KINDS:
        assert f"[{kind}] starts and answers the warm-up ... ok" in lines
        assert f"[{kind}] predict serving_default by gRPC ... ok" in lines
        assert f"[{kind}] regress regress_click by gRPC ... ok" in lines
        assert f"[{kind}] answers as a new export does ... ok" in lines
        assert f"[{kind}] update_dense by gRPC ... ok" in lines
        by_rest = f"[{kind}] predict serving_default by REST ... ok" in lines
        assert by_rest == (kind != "tls")


def test_an_export_is_served_by_a_program(export_dir, tmp_path):
    notes = tmp_path / "batching"
    text = _SERVER.format(python=sys.executable, notes=str(notes))
    program = _program(tmp_path / "model_server", text)
    options = ["--binary", program, "--export", export_dir, "--only", "batching"]
    done = _check(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[batching] predict serving_default by REST ... ok" in done.stdout
    assert "[batching] 3 requests at once, lists of any length ... ok" in done.stdout
    assert "publish" not in done.stdout
    assert "max_batch_size { value: 16 }\n" in notes.read_text()
    assert "pad_variable_length_inputs: true\n" in notes.read_text()


def test_the_first_step_that_fails_ends_it(export_dir, tmp_path):
    program = _program(tmp_path / "model_server", "#!/bin/sh\necho bad flag\nexit 3\n")
    done = _check("--binary", program, "--export", export_dir)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    place = lines.index("[plain] starts and answers the warm-up ... failed")
    assert lines[place + 1] == "  RuntimeError: The server exited with code 3."
    assert lines[place + 2 :] == ["  bad flag"]


@pytest.mark.slow
def test_a_server_that_hangs_is_stopped(export_dir, tmp_path):
    pid = tmp_path / "pid"
    text = f"#!/bin/sh\necho $$ > {pid}\nexec sleep 600\n"
    program = _program(tmp_path / "model_server", text)
    done = _check("--binary", program, "--export", export_dir, "--timeout-secs", 25)
    assert done.returncode == 1
    assert "TimeoutError: The check takes longer than --timeout-secs." in done.stdout
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_program_that_is_not_there_is_an_error(tmp_path):
    done = _check("--binary", tmp_path / "none")
    assert done.returncode == 2
    assert "Name one with --binary, or use --stand-in." in done.stderr
