"""Runs a package's tests against small changes of it; lists the changes they miss."""

import argparse
import compileall
import contextlib
import os
import pathlib
import py_compile
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator

import forked
import mutants
import recorded
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import WorkerOutcome
from cosmic_ray.work_item import WorkItem
from cosmic_ray.work_item import WorkResult
from trials import Trials

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_COPIED = ("monolith_tf", "tests")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("package", help="a package of monolith_tf, such as training")
    parser.add_argument("--count", type=int, default=150, help="mutants (150)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the draw (1)")
    parser.add_argument(
        "--timeout",
        type=float,
        help="seconds for one mutant; by default 60 plus three times the time of its "
        "tests without a change",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="run the survivors again, on all tests of their modules",
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
    """Yields a copy of the tree: the working tree is never changed."""
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
        # By a hash of the source, not its time: a change may take less than a second.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(copy / "monolith_tf", quiet=2, invalidation_mode=checked)
        yield copy


def _session(root: pathlib.Path, arguments: argparse.Namespace) -> pathlib.Path:
    """Returns the file for outcomes; changed source gets its own file."""
    package = root / "monolith_tf" / arguments.package
    crc = 0
    for path in sorted(package.rglob("*.py")):
        crc = zlib.crc32(path.read_bytes(), crc)
    folder = root / "build" / "mutate"
    folder.mkdir(parents=True, exist_ok=True)
    name = arguments.package.replace("/", ".")
    return folder / f"{name}-{arguments.count}-{arguments.seed}-{crc:08x}.sqlite"


def _where(item: WorkItem) -> str:
    (mutation,) = item.mutations
    return f"{mutation.module_path}:{mutation.start_pos[0]}"


def _run(database: WorkDB, trials: Trials, *, retry: bool) -> None:
    done = {item.job_id: result for item, result in database.completed_work_items}
    for number, item in enumerate(database.work_items, 1):
        known = done.get(item.job_id)
        if known and (known.is_killed or not retry):
            continue
        result, said = trials(item)
        if result.worker_outcome is not WorkerOutcome.NORMAL:
            # It is not counted.
            print(f"{number:4} impossible {_where(item)} ({result.output})", flush=True)
            continue
        database.set_result(item.job_id, result)
        outcome = "timeout" if result.output == "timeout" else result.test_outcome.value
        print(f"{number:4} {outcome:8} {_where(item)} ({said})", flush=True)


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
    """Runs the rest of a session, and prints its score and survivors."""
    arguments = _arguments()
    session = _session(arguments.root, arguments)
    with _copy(arguments.root) as copy, use_db(session) as database:
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        sys.path.insert(0, str(copy))
        package = pathlib.Path("monolith_tf", arguments.package)
        if not database.num_work_items:
            database.add_work_items(
                mutants.draw(package, arguments.count, arguments.seed)
            )
        print(
            f"seed {arguments.seed}: {database.num_work_items} mutants of "
            f"{arguments.package}, {database.num_results} done; kept in {session}",
            flush=True,
        )
        forked.preload(package)
        tests = recorded.record(package, session.parent)
        trials = Trials(tests, arguments.timeout, every_test=arguments.retry)
        _run(database, trials, retry=arguments.retry)
        _report(database)


if __name__ == "__main__":
    main()
