"""The command line: sub-commands, exit codes and one-line errors."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from absl import app
from absl import flags
from absl import logging
from absl.flags import argparse_flags

import monolith_tf
from monolith_tf import paths
from monolith_tf.cli import check
from monolith_tf.cli import compact
from monolith_tf.cli import errors
from monolith_tf.cli import evaluate
from monolith_tf.cli import export
from monolith_tf.cli import inspect
from monolith_tf.cli import launch
from monolith_tf.cli import origin
from monolith_tf.cli import predict
from monolith_tf.cli import progress
from monolith_tf.cli import publish
from monolith_tf.cli import replay
from monolith_tf.cli import serve
from monolith_tf.cli import train
from monolith_tf.distribute import exits
from monolith_tf.distribute import task

SUB_COMMANDS = {
    "train": train,
    "launch": launch,
    "evaluate": evaluate,
    "export": export,
    "predict": predict,
    "serve": serve,
    "publish": publish,
    "replay": replay,
    "check": check,
    "inspect": inspect,
    "compact": compact,
}
_PATHS = {
    "config": "CONFIG",
    "path": "PATH",
    "saved_model": "SAVED_MODEL",
    "model_dir": "MODEL_DIR",
    "export_dir": "EXPORT_DIR",
    "checkpoint": "--checkpoint",
    "input": "--input",
    "output": "--output",
    "write_config": "--write-config",
    "tls_ca": "--tls-ca",
    "tls_cert": "--tls-cert",
    "tls_key": "--tls-key",
}
"""Arguments that are paths, in all sub-commands."""
_MESSAGE_LINES = 12
_EPILOG = """\
CONFIG is a YAML file; `key.path=value` replaces one of its values:
  monolith-tf train configs/census_mmoe.yaml trainer.max_steps=200 tables[0].dim=8

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted; in a cluster also 75 if a
parameter server was lost, and 76 if there was no chief for too long.
"""


def run() -> None:
    """Runs the command; the entry point of the console script `monolith-tf`."""
    app.run(_run_to_the_end, flags_parser=parse)


def _run_to_the_end(arguments: argparse.Namespace) -> int:
    code = main(arguments)
    if arguments.command == "train" and os.environ.get(task.VARIABLE):
        # TensorFlow's threads may wait for a lost task forever, and Python for them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line.

    Args:
      argv: The program's name and its arguments.
    """
    parser = argparse_flags.ArgumentParser(
        prog="monolith-tf",
        description="Trains, evaluates, exports and inspects recommender models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"monolith_tf {monolith_tf.__version__}"
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for name, module in SUB_COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        sub_parser = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(sub_parser)
        sub_parser.add_argument(
            "--verbose", action="store_true", help="also show TensorFlow's messages"
        )
        sub_parser.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
    arguments, extra = parser.parse_known_args(argv[1:])
    # Overrides may come before and after options; argparse accepts one run of them.
    overrides = getattr(arguments, "overrides", None)
    wrong = [x for x in extra if overrides is None or x.startswith("-") or "=" not in x]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if overrides is not None:
        overrides.extend(extra)
    return arguments


def main(arguments: argparse.Namespace) -> int:
    """Runs a sub-command.

    Args:
      arguments: What `parse` returned.

    Returns:
      The exit code.
    """
    progress.attach_log(progress.Lines(sys.stderr), verbose=arguments.verbose)
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.INFO)
    try:
        _check_paths(arguments)
        return SUB_COMMANDS[arguments.command].run(arguments)
    except KeyboardInterrupt as error:
        _complain(str(error) or "Interrupted.")
        return errors.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; the interpreter must not flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.FAILED
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        return _failed(error, debug=arguments.debug)


def _check_paths(arguments: argparse.Namespace) -> None:
    for key, name in _PATHS.items():
        path = getattr(arguments, key, None)
        if path is not None:
            try:
                paths.check(name, path)
            except ValueError as error:
                raise errors.UsageError(str(error)) from None


def _failed(error: Exception, *, debug: bool) -> int:
    """Prints what went wrong and returns the exit code for it."""
    if isinstance(error, errors.UsageError):
        _complain(f"error: {error}")
        return errors.WRONG_USE
    if isinstance(error, task.TaskError):
        _complain(f"error: {error}")
        return errors.WRONG_USE
    if isinstance(error, exits.ParameterServerLostError | exits.ChiefGoneError):
        _complain(f"error: {error}")
        lost = isinstance(error, exits.ParameterServerLostError)
        return exits.PS_LOST if lost else exits.CHIEF_GONE
    config_errors = sys.modules.get("monolith_tf.config.errors")
    if config_errors is not None and isinstance(error, config_errors.ConfigError):
        _complain(str(error))
        return errors.WRONG_USE
    found = origin.find(error)
    kinds = OSError | ValueError | ArithmeticError | MemoryError
    foreseen = isinstance(found.error, kinds)
    if foreseen:
        _complain(f"error: {found.message or type(found.error).__name__}")
    else:
        lines = found.message.strip().splitlines()[-_MESSAGE_LINES:]
        _complain(f"error: {type(found.error).__name__}: " + "\n".join(lines))
    if found.place:
        _complain(f"  {found.place}")
    if not debug and (found.place or not foreseen):
        _complain("Add --debug to see the whole traceback.")
    return errors.FAILED


def _complain(message: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
