"""Tests of `scripts/mutate` on a package of two functions."""

import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("cosmic_ray", reason="scripts/mutate installs it")
pytest.importorskip("pytest_cov", reason="scripts/mutate installs it")

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


def test_runs_the_tests_of_a_line_or_all_tests_of_the_module(root):
    (root / "monolith_tf" / "toy" / "numbers.py").write_text(
        "LIMIT = 40\n\n\ndef low():\n    return 10\n\n\ndef high():\n    return 90\n"
    )
    (root / "tests" / "toy" / "numbers_test.py").write_text(
        "from monolith_tf.toy import numbers\n\n\n"
        "def test_low():\n    assert numbers.low() == 10\n\n\n"
        "def test_low_is_low():\n    assert numbers.low() < 20\n\n\n"
        "def test_limit():\n    assert numbers.LIMIT == 40\n"
    )
    printed = _mutate(root)
    assert " killed   monolith_tf/toy/numbers.py:1 (tests: 3)" in printed
    assert " killed   monolith_tf/toy/numbers.py:5 (tests: 2)" in printed
    assert " survived monolith_tf/toy/numbers.py:9 (tests: 3)" in printed

    retried = _mutate(root, "--retry")
    assert "     lines of " in printed
    assert "     lines of " not in retried


def test_says_which_tests_were_cut_and_a_retry_runs_them(root):
    test = root / "tests" / "toy" / "numbers_test.py"
    test.write_text(
        "from monolith_tf.toy import numbers\n\n\n"
        "def test_quick():\n    numbers.tested()\n\n\n"
        "def test_slow():\n    assert numbers.tested() == 40\n"
    )
    printed = _mutate(root, "--seed", "3")
    assert "cut:" not in printed
    (record,) = (root / "build" / "mutate").glob("*.json")
    quick, slow = json.loads(record.read_text())
    record.write_text(json.dumps([quick, {**slow, "secs": 170.0}]))
    (session,) = (root / "build" / "mutate").glob("*.sqlite")
    session.unlink()
    printed = _mutate(root, "--seed", "3")
    assert (
        " survived monolith_tf/toy/numbers.py:5 (tests: 1, cut: 1 of 170 s)" in printed
    )
    retried = _mutate(root, "--seed", "3", "--retry")
    assert " killed   monolith_tf/toy/numbers.py:5 (tests: 2)" in retried


def test_a_default_is_tried_by_the_tests_of_its_function(root):
    (root / "monolith_tf" / "toy" / "numbers.py").write_text(
        "def first():\n    return 40\n\n\ndef tested(number=40):\n    return number\n"
    )
    (root / "tests" / "toy" / "numbers_test.py").write_text(
        # The first test imports the module, which runs the line of the default.
        "def test_first():\n    from monolith_tf.toy import numbers\n\n"
        "    assert numbers.first() == 40\n\n\n"
        "def test_tested():\n    from monolith_tf.toy import numbers\n\n"
        "    assert numbers.tested() == 40\n"
    )
    printed = _mutate(root)
    assert " killed   monolith_tf/toy/numbers.py:2 (tests: 1)" in printed
    assert " killed   monolith_tf/toy/numbers.py:5 (tests: 1)" in printed


def test_a_constant_is_tried_by_the_tests_of_the_functions_that_use_it(root):
    (root / "monolith_tf" / "toy" / "numbers.py").write_text(
        "LIMIT = 40\n\n\ndef first():\n    return 10\n\n\n"
        "def tested():\n    return LIMIT\n"
    )
    (root / "tests" / "toy" / "numbers_test.py").write_text(
        "from monolith_tf.toy import numbers\n\n\n"
        "def test_first():\n    assert numbers.first() == 10\n\n\n"
        "def test_tested():\n    assert numbers.tested() == 40\n"
    )
    printed = _mutate(root)
    assert " killed   monolith_tf/toy/numbers.py:1 (tests: 1)" in printed


def test_what_only_guards_the_code_is_not_changed(root):
    (root / "monolith_tf" / "toy" / "numbers.py").write_text(
        "def pairs(a, b):\n    return list(zip(a, b, strict=True))\n\n\n"
        "def tested() -> 1:\n    return 40\n"
    )
    printed = _mutate(root)
    assert "monolith_tf/toy/numbers.py:2" not in printed
    assert "monolith_tf/toy/numbers.py:6" in printed
    assert "seed 1: 1 mutants" in printed


def test_a_test_that_fails_without_a_change_stops_it(root):
    test = root / "tests" / "toy" / "numbers_test.py"
    test.write_text(_TEST.replace("40", "41"))
    command = [sys.executable, str(_MAIN), "toy", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "The tests fail without any change: tests/toy/numbers_test.py" in done.stderr


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
