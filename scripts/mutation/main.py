"""Runs the tests of a package against small changes of it; lists what they miss."""

import argparse
import contextlib
import os
import pathlib
import shlex
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator

import mutants
from cosmic_ray import mutating
from cosmic_ray import testing
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome
from cosmic_ray.work_item import WorkerOutcome
from cosmic_ray.work_item import WorkItem
from cosmic_ray.work_item import WorkResult

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_COPIED = ("monolith_tf", "tests")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("package", help="a package of monolith_tf, such as training")
    parser.add_argument("--count", type=int, default=150, help="mutants (150)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (1)")
    parser.add_argument(
        "--timeout",
        type=float,
        help="seconds for one mutant; by default 30 and three times what the tests "
        "take without a change",
    )
    parser.add_argument(
        "--retry", action="store_true", help="run the survivors once more"
    )
    parser.add_argument(
        "--root", type=pathlib.Path, default=_ROOT, help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    arguments.root = arguments.root.resolve()
    if not (arguments.root / "monolith_tf" / arguments.package).is_dir():
        parser.error(f"no package `monolith_tf/{arguments.package}`.")
    if arguments.count < 1:
        parser.error(f"`--count` must be at least 1. Received: {arguments.count}.")
    return arguments


@contextlib.contextmanager
def _copy(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a copy of the tree: the working tree is never changed."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = pathlib.Path(folder)
        for entry in root.iterdir():
            if entry.name in _COPIED:
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(entry, copy / entry.name, ignore=ignored)
            elif entry.is_file():
                shutil.copy(entry, copy)
            elif entry.name != ".git":
                (copy / entry.name).symlink_to(entry)
        yield copy


def _session(root: pathlib.Path, arguments: argparse.Namespace) -> pathlib.Path:
    """Returns the file that keeps outcomes; changed source gets a file of its own."""
    package = root / "monolith_tf" / arguments.package
    crc = 0
    for path in sorted(package.rglob("*.py")):
        crc = zlib.crc32(path.read_bytes(), crc)
    folder = root / "build" / "mutate"
    folder.mkdir(parents=True, exist_ok=True)
    name = arguments.package.replace("/", ".")
    return folder / f"{name}-{arguments.count}-{arguments.seed}-{crc:08x}.sqlite"


def _command(module: pathlib.Path) -> str:
    tests = mutants.covering_tests(module)
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not distributed",
    ]
    return shlex.join([sys.executable, "-m", "pytest", *options, *tests])


class _Limits:
    """Seconds for each command; a command must pass while nothing is changed."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._known: dict[str, float] = {}

    def __call__(self, command: str) -> float:
        if command not in self._known:
            start = time.monotonic()
            outcome, output = testing.run_tests(command, 3600)
            if outcome is not TestOutcome.SURVIVED:
                raise SystemExit(
                    f"{output}\nThe tests fail without any change: {command}"
                )
            secs = time.monotonic() - start
            self._known[command] = self._timeout or 30 + 3 * secs
        return self._known[command]


def _where(item: WorkItem) -> str:
    (mutation,) = item.mutations
    return f"{mutation.module_path}:{mutation.start_pos[0]}"


def _run(database: WorkDB, arguments: argparse.Namespace) -> None:
    limits = _Limits(arguments.timeout)
    done = {item.job_id: result for item, result in database.completed_work_items}
    for number, item in enumerate(database.work_items, 1):
        known = done.get(item.job_id)
        if known and (known.is_killed or not arguments.retry):
            continue
        command = _command(item.mutations[0].module_path)
        limit = limits(command)
        result = mutating.mutate_and_test(item.mutations, command, limit)
        if result.worker_outcome is not WorkerOutcome.NORMAL:
            # Such as `a.Error` in `except (a.Error, b.Error)`. It does not count.
            why = (result.output or "no change").strip().splitlines()[-1]
            print(f"{number:4} impossible {_where(item)} ({why})", flush=True)
            continue
        database.set_result(item.job_id, result)
        outcome = "timeout" if result.output == "timeout" else result.test_outcome.value
        print(f"{number:4} {outcome:8} {_where(item)}", flush=True)


def _change(result: WorkResult) -> list[str]:
    """Returns the removed and the added lines of a change."""
    return [
        line
        for line in result.diff.splitlines()
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]


def _report(database: WorkDB) -> None:
    done = database.completed_work_items
    survivors = [(item, result) for item, result in done if not result.is_killed]
    caught = len(done) - len(survivors)
    for item, result in sorted(survivors, key=lambda pair: _where(pair[0])):
        print("survivor", _where(item))
        print("\n".join(f"    {line}" for line in _change(result)))
    share = 100 * caught / len(done) if done else 100.0
    print(f"score: {caught} of {len(done)} mutants caught, {share:.1f} %")


def main() -> None:
    """Runs what is left of a session, and prints its score and survivors."""
    arguments = _arguments()
    session = _session(arguments.root, arguments)
    with _copy(arguments.root) as copy, use_db(session) as database:
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        if not database.num_work_items:
            package = pathlib.Path("monolith_tf", arguments.package)
            database.add_work_items(
                mutants.draw(package, arguments.count, arguments.seed)
            )
        print(
            f"seed {arguments.seed}: {database.num_work_items} mutants of "
            f"{arguments.package}, {database.num_results} done; kept in {session}",
            flush=True,
        )
        _run(database, arguments)
        _report(database)


if __name__ == "__main__":
    main()
