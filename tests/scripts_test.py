"""Tests of the scripts' messages when they fail.

They run in a copy of the project with a stand-in for Python, so that nothing is
installed.
"""

import os
import pathlib
import shutil
import subprocess

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent

_PYTHON = """\
#!/bin/sh
case "$1 $2" in
  "-c "*) echo "$FAKE_VERSION" ;;
  "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip") echo "$FAKE_PIP_ERROR" >&2; echo pip >> calls; [ -z "$FAKE_PIP_ERROR" ] ;;
esac
"""

_SCRIPT = """\
#!/usr/bin/env bash
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
. "$ROOT/scripts/_env.sh"
make_env test
echo ready
"""


@pytest.fixture
def project(tmp_path):
    """A project folder with a script that only creates the environment."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(_ROOT / "scripts" / "_env.sh", tmp_path / "scripts")
    for name in ("constraints.txt", "setup.py", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    _program(tmp_path / "scripts" / "ready", _SCRIPT)
    _program(tmp_path / "bin" / "python3", _PYTHON)
    return tmp_path


def _program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _run(project, **environment):
    return subprocess.run(
        [project / "scripts" / "ready"],
        env={
            "PATH": f"{project / 'bin'}:/usr/bin:/bin",
            "FAKE_VERSION": "3.12",
            "FAKE_PIP_ERROR": "",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_installs_once_and_again_when_versions_change(project):
    assert _run(project).stdout.splitlines()[-1] == "ready"
    assert _run(project).stdout == "ready\n"
    (project / "constraints.txt").write_text("other versions")
    _run(project)
    assert (project / "calls").read_text() == "pip\npip\n"


@pytest.mark.parametrize("version", ["3.10", "3.14", "2.7"])
def test_an_unfit_python_is_named(project, version):
    done = _run(project, FAKE_VERSION=version, PYTHON=str(project / "bin" / "python3"))
    assert done.returncode == 1
    assert f"python3 is Python {version}; TensorFlow 2.21 needs 3.11" in done.stderr
    assert not (project / ".venv").exists()


def test_a_python_that_is_not_there_is_named(project):
    done = _run(project, PYTHON="/no/python")
    assert done.returncode == 1
    assert "PYTHON=/no/python is not an executable." in done.stderr


def test_a_full_disk_is_reported_before_anything_is_written(project):
    _program(
        project / "bin" / "df",
        "#!/bin/sh\necho header\necho '/dev/x 100 90 204800 99% /'\n",
    )
    done = _run(project)
    assert done.returncode == 1
    assert "200 MiB are free here; the installation needs about 4 GB" in done.stderr
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("pip_says", "expected"),
    [
        ("[Errno 28] No space left on device", "the disk is full"),
        (
            "NewConnectionError: Failed to establish a new connection",
            "cannot reach the package registry",
        ),
        ("No matching distribution", "pip could not install"),
    ],
)
def test_what_stops_pip_is_reported(project, pip_says, expected):
    done = _run(project, FAKE_PIP_ERROR=pip_says)
    assert done.returncode == 1
    assert pip_says in done.stderr
    assert expected in done.stderr
    assert not list((project / ".venv").glob(".installed*"))


@pytest.mark.parametrize("name", ["quickstart", "test", "lint", "bench"])
def test_scripts_are_executable_and_parse(name):
    path = _ROOT / "scripts" / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True, timeout=10)
