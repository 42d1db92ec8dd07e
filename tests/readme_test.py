"""Runs the README's model unchanged."""

import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.timeout(600)
def test_the_model_fn_of_the_readme_runs_as_it_stands(tmp_path):
    text = (_ROOT / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(program.splitlines()) < 40
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(_ROOT / name)
    (tmp_path / "my_model.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "my_model.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    auc, path = done.stdout.splitlines()[-2:]
    assert 0.93 < float(auc) < 1
    assert (tmp_path / path / "saved_model.pb").exists()
