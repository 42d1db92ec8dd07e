"""Tests of `scripts/mutate` on a package of two functions."""

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("cosmic_ray", reason="scripts/mutate installs it")

_MAIN = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "mutation" / "main.py"
_SOURCE = '''"""Two numbers."""


def tested() -> "int | None":
    return 40


def untested() -> int | None:
    return 50
'''
_TEST = """from monolith_tf.toy import numbers


def test_tested():
    assert numbers.tested() == 40
"""


def _mutate(root, *arguments):
    command = [sys.executable, str(_MAIN), "toy", "--root", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def root(tmp_path):
    package = tmp_path / "monolith_tf" / "toy"
    tests = tmp_path / "tests" / "toy"
    package.mkdir(parents=True)
    tests.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "numbers.py").write_text(_SOURCE)
    (tests / "numbers_test.py").write_text(_TEST)
    return tmp_path


def test_scores_lists_survivors_and_resumes(root):
    printed = _mutate(root, "--seed", "3")
    assert "seed 3: 2 mutants of toy, 0 done" in printed
    assert "survivor monolith_tf/toy/numbers.py:9\n    -    return 50\n" in printed
    assert "survivor monolith_tf/toy/numbers.py:5" not in printed
    assert "score: 1 of 2 mutants caught, 50.0 %" in printed
    assert (root / "monolith_tf" / "toy" / "numbers.py").read_text() == _SOURCE

    resumed = _mutate(root, "--seed", "3")
    assert "2 done" in resumed
    assert " killed " not in resumed
    assert "score: 1 of 2 mutants caught, 50.0 %" in resumed

    test = root / "tests" / "toy" / "numbers_test.py"
    test.write_text(_TEST + "    assert numbers.untested() == 50\n")
    retried = _mutate(root, "--seed", "3", "--retry")
    assert "score: 2 of 2 mutants caught, 100.0 %" in retried


def test_a_change_that_cannot_be_made_does_not_count(root):
    module = root / "monolith_tf" / "toy" / "numbers.py"
    module.write_text(
        "import json\n\n\n"
        "def tested():\n"
        "    try:\n"
        "        json.loads('')\n"
        "    except (json.JSONDecodeError, TypeError):\n"
        "        return 40\n"
    )
    printed = _mutate(root)
    assert " impossible monolith_tf/toy/numbers.py:7 (AttributeError: " in printed
    assert "3 mutants of toy" in printed
    assert "score: 2 of 2 mutants caught, 100.0 %" in printed
