"""Exit codes and output, in separate processes where it matters."""

import json
import pathlib
import resource
import subprocess
import sys
import textwrap
from unittest import mock

import pytest

from monolith_tf.cli import errors
from monolith_tf.cli import main

DATA = pathlib.Path(__file__).parents[1] / "config" / "testdata"
ASSEMBLED = str(DATA / "assembled.yaml")
REGISTERED = str(DATA / "dcn.yaml")


def run(*arguments, code=None):
    begin = ["-c", textwrap.dedent(code)] if code else ["-m", "monolith_tf"]
    return subprocess.run(
        [sys.executable, *begin, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def call(capsys, *arguments):
    """Runs a sub-command in this process, where a separate one is not needed."""
    status = main.main(main.parse(["monolith-tf", *arguments]))
    return status, *capsys.readouterr()


# Runs a sub-command, then prints whether TensorFlow was imported.
_WITHOUT_TENSORFLOW = """\
    import sys
    from monolith_tf.cli import main
    try:
        status = main.main(main.parse(["monolith-tf", *sys.argv[1:]]))
    except SystemExit as error:
        status = error.code
    assert "tensorflow" not in sys.modules
    assert "tf_keras" not in sys.modules
    sys.exit(status)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["predict", "--help"],
        ["check", ASSEMBLED],
        ["check", "--schema"],
        ["check", ASSEMBLED, "sed=1"],
        ["check", REGISTERED, "model.params.label=clik"],
        ["check", REGISTERED, "export.classify=[clik]"],
    ],
    ids=" ".join,
)
def test_tensorflow_is_not_loaded(arguments):
    done = run(*arguments, code=_WITHOUT_TENSORFLOW)
    is_wrong = any("=" in argument for argument in arguments)
    assert done.returncode == (2 if is_wrong else 0), done.stderr
    assert "Traceback" not in done.stderr


def test_check_prints_config_features_and_tables():
    done = run(
        "check",
        ASSEMBLED,
        "tables[0].max_rows=1000",
        "tables[0].large_integers=exact",
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("model_dir: runs/deepfm\n")
    printed = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        "history id_list int history 8 first 5",
        "user assigned integers, below 2^48 8 user 115 109.7 MiB no limit this "
        "process, CPU",
        "sliced assigned integers, all of 64 bits 9 item 123 117.3 MiB 120.1 KiB this "
        "process, CPU",
        f"{ASSEMBLED} is fine.",
    ):
        assert line in printed


def test_check_takes_less_than_a_second_of_the_processor():
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("check", ASSEMBLED).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        user = after.ru_utime - before.ru_utime
        seconds.append(user + after.ru_stime - before.ru_stime)
    assert min(seconds) < 1.0


def test_the_schema_is_json(capsys):
    status, out, _ = call(capsys, "check", "--schema")
    assert status == 0
    assert "trainer" in json.loads(out)["properties"]


def test_a_config_error_is_wrong_use():
    done = run("check", ASSEMBLED, "trainer.max_step=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "command line: `trainer.max_step`: unknown key. Did you mean `max_steps`?\n"
    )


def test_wrong_arguments_are_wrong_use():
    for arguments in ([], ["trane"], ["check", ASSEMBLED, "--foo"]):
        done = run(*arguments)
        assert done.returncode == 2
        assert "usage: monolith-tf" in done.stderr
    done = run("check")
    assert done.returncode == 2
    assert done.stderr == "error: a CONFIG is needed, unless --schema is given.\n"


def test_overrides_may_stand_around_options():
    arguments = main.parse(
        ["monolith-tf", "evaluate", "c.yaml", "a=1", "--split", "eval", "b=2", "c=3"]
    )
    assert arguments.overrides == ["a=1", "b=2", "c=3"]
    assert arguments.split == "eval"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["train", "c.yaml", "--foo=1"], "--foo=1"),
        (["evaluate", "c.yaml", "--split", "eval", "more"], "more"),
        (["inspect", "path", "a=1"], "a=1"),
    ],
)
def test_arguments_nobody_knows(arguments, wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        main.parse(["monolith-tf", *arguments])
    assert caught.value.code == 2
    assert f"unrecognized arguments: {wrong}" in capsys.readouterr().err


class TestErrors:
    @pytest.fixture
    def fail(self, monkeypatch, capsys):
        def run(error, *more):
            # It is not raised in a file of the user.
            raise_it = mock.Mock(side_effect=error)
            monkeypatch.setattr("monolith_tf.cli.check.run", raise_it)
            status, out, err = call(capsys, "check", "c.yaml", *more)
            assert out == ""
            return status, err

        return run

    def test_a_foreseen_error_is_one_line(self, fail):
        assert fail(ValueError("No `x` here.")) == (1, "error: No `x` here.\n")
        assert fail(MemoryError("No room.")) == (1, "error: No room.\n")
        assert fail(MemoryError()) == (1, "error: MemoryError\n")

    def test_an_unforeseen_error_names_its_kind(self, fail):
        lines = [f"line {number}\n" for number in range(30)]
        status, err = fail(RuntimeError("".join(lines)))
        assert status == errors.FAILED
        assert err == (
            "error: RuntimeError: "
            + "".join(lines[-12:])
            + "Add --debug to see the whole traceback.\n"
        )

    def test_debug_shows_the_traceback(self, fail):
        status, err = fail(RuntimeError("first"), "--debug")
        assert status == errors.FAILED
        assert "Traceback (most recent call last)" in err
        assert "mock.py" in err
        assert err.endswith("\nerror: RuntimeError: first\n")

    def test_wrong_use(self, fail):
        assert fail(errors.UsageError("no")) == (2, "error: no\n")

    def test_an_interrupt(self, fail):
        assert fail(KeyboardInterrupt()) == (130, "Interrupted.\n")
        assert fail(KeyboardInterrupt("At step 3.")) == (130, "At step 3.\n")


def test_ctrl_c_at_any_time():
    code = """\
        import os, signal, sys
        from monolith_tf.cli import main, check
        check.run = lambda arguments: os.kill(os.getpid(), signal.SIGINT)
        sys.argv = ["monolith-tf", "check", "c.yaml"]
        main.run()
    """
    done = run(code=code)
    assert done.returncode == 130
    assert done.stderr == "Interrupted.\n"


def test_a_reader_that_goes_away():
    command = f"{sys.executable} -m monolith_tf check --schema | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_tensorflow_says_nothing_unless_asked():
    code = """\
        import sys
        from monolith_tf.cli import quiet
        quiet.import_tensorflow(verbose=False)
        assert "tensorflow" in sys.modules
        print("still there", file=sys.stderr)
    """
    done = run(code=code)
    assert done.returncode == 0
    assert done.stderr == "still there\n"


def test_what_was_held_back_is_shown_after_an_error():
    code = """\
        import os
        from monolith_tf.cli import quiet
        with quiet._held_back_stderr():
            os.write(2, b"said before\\n")
            raise OSError("failed")
    """
    done = run(code=code)
    assert done.returncode == 1
    assert "said before" in done.stderr
    assert "OSError: failed" in done.stderr
