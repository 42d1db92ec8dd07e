"""Numbers and addresses that no sub-command can use are rejected at once."""

import argparse

import pytest

from monolith_tf.cli import main
from monolith_tf.cli import option_types

PUBLISH = ["publish", "job", "--to", "localhost:8500"]
SERVE = ["serve", "export"]
LAUNCH = ["launch", "c.yaml"]
PREDICT = ["predict", "export", "--input", "rows.csv", "--output", "out.csv"]
SECONDS = "must be a number of seconds, {} and at most 1000000000"


def parse(*arguments):
    return main.parse(["monolith-tf", *arguments])


@pytest.mark.parametrize(
    ("command", "option", "values", "message"),
    [
        (
            SERVE,
            "--port",
            ["-1", "65536", "99999", "80.5", "http", "nan"],
            "must be a whole number from 0 to 65535",
        ),
        (
            SERVE,
            "--rest-port",
            ["-1", "99999"],
            "must be a whole number from 0 to 65535",
        ),
        (
            SERVE,
            "--poll-secs",
            ["0", "-1", "nan", "inf", "1e300", "soon"],
            SECONDS.format("above 0"),
        ),
        (
            SERVE,
            "--host",
            ["", "localhost:8500", "http://localhost", "a b", "[::1]:8500"],
            "must be a name or an address of this machine, without a port",
        ),
        (
            PUBLISH,
            "--patience-secs",
            ["-1", "nan", "inf", "1e10"],
            SECONDS.format("at least 0"),
        ),
        (PUBLISH, "--every", ["0", "-5", "nan", "inf"], SECONDS.format("above 0")),
        (
            PUBLISH,
            "--to",
            [
                "localhost",
                "no.such.host",
                "localhost:",
                ":8500",
                "localhost:0",
                "localhost:99999",
                "http://localhost:8501",
                "localhost:8500/v1",
                "::1",
                "::1:8500",
            ],
            "must be HOST:PORT, such as localhost:8500, with a port from 1 to 65535",
        ),
        (LAUNCH, "--ps", ["0", "-1", "1.5"], "must be a whole number from 1 to 10000"),
        (
            LAUNCH,
            "--workers",
            ["0", "1000000"],
            "must be a whole number from 1 to 10000",
        ),
        (
            LAUNCH,
            "--max-restarts",
            ["-1", "inf", "2147483648"],
            "must be a whole number from 0 to 2147483647",
        ),
        (
            PREDICT,
            "--batch-size",
            ["0", "-4096", "1e3"],
            "must be a whole number from 1 to 2147483647",
        ),
    ],
)
def test_values_that_no_option_takes(command, option, values, message, capsys):
    for value in values:
        with pytest.raises(SystemExit) as caught:
            parse(*command, option, value)
        assert caught.value.code == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == (
            f"monolith-tf {command[0]}: error: argument {option}: {message}. "
            f"Received: {value}"
        )


def test_every_number_on_the_command_line_has_bounds():
    unbounded = [
        (name, action.dest)
        for name, module in main.SUB_COMMANDS.items()
        for action in _actions(module)
        if action.type in (int, float)
    ]
    assert unbounded == []


def _actions(module):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser._actions


def test_values_at_the_bounds():
    served = parse(*SERVE, "--port", "0", "--rest-port", "65535", "--poll-secs", "1e-3")
    assert (served.port, served.rest_port, served.poll_secs) == (0, 65535, 0.001)
    sent = parse(*PUBLISH, "--patience-secs", "0", "--to", "[::1]:1")
    assert (sent.patience_secs, sent.to) == (0.0, ["localhost:8500", "[::1]:1"])
    assert parse(*LAUNCH, "--ps", "1", "--max-restarts", "0").max_restarts == 0
    for given, host in (("::1", "::1"), ("[::1]", "::1"), ("a.b", "a.b")):
        assert option_types.host(given) == host
