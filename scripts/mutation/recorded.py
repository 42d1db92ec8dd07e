"""Records the lines that each test of a package runs, and its time."""

import collections
import dataclasses
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import coverage
import forked
import mutants
import pytest

OPTIONS = (
    "-q",
    "--rootdir=.",
    "-p",
    "no:cacheprovider",
    "-m",
    "not slow and not distributed",
)
_LIMIT_SECS = 3600.0


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A test's run without any change.

    Attributes:
      name: Its pytest name, `tests/training/loop_test.py::LoopTest::test_x`.
      secs: Its seconds, with its fixtures.
      lines: The lines that it ran, for each module of the package.
    """

    name: str
    secs: float
    lines: dict[str, frozenset[int]]


class _Seconds:
    """A pytest plugin that adds up the seconds of each test."""

    def __init__(self) -> None:
        self.of: dict[str, float] = collections.defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.of[report.nodeid] += report.duration


def _lines(measured: pathlib.Path) -> dict[str, dict[str, list[int]]]:
    """Returns test -> module -> lines, from coverage data."""
    data = coverage.CoverageData(str(measured))
    data.read()
    found: dict[str, dict[str, list[int]]] = collections.defaultdict(dict)
    for module in data.measured_files():
        for line, contexts in data.contexts_by_lineno(module).items():
            # A context is a test and a phase, `name|setup`; without one, an import.
            for test in {context.rpartition("|")[0] for context in contexts} - {""}:
                lines = found[test].setdefault(os.path.relpath(module), [])
                lines.append(line)
    return found


def _record(file: pathlib.Path, package: pathlib.Path, kept: pathlib.Path) -> int:
    """Runs a test file and writes its record to `kept`; returns pytest's exit code."""
    measured = pathlib.Path("measured").absolute()
    measured.unlink(missing_ok=True)
    os.environ["COVERAGE_FILE"] = str(measured)
    seconds = _Seconds()
    measuring = [f"--cov={package}", "--cov-context=test", "--cov-report="]
    code = pytest.main([*OPTIONS, *measuring, str(file)], plugins=[seconds])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return int(code)
    lines = _lines(measured) if measured.exists() else {}
    tests = [
        {"name": name, "secs": round(secs, 3), "lines": lines.get(name, {})}
        for name, secs in seconds.of.items()
    ]
    kept.write_text(json.dumps(tests), encoding="utf-8")
    return 0


def _must_pass(work: Callable[[], int], file: pathlib.Path) -> None:
    output = pathlib.Path("output").absolute()
    if forked.run(work, output, _LIMIT_SECS) != 0:
        printed = output.read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"{printed}\nThe tests fail without any change: {file}")


def _crc(paths: Iterable[pathlib.Path]) -> int:
    crc = 0
    for path in sorted(paths):
        crc = zlib.crc32(path.read_bytes(), crc)
    return crc


def record(package: pathlib.Path, folder: pathlib.Path) -> list[Recorded]:
    """Runs the tests of a package under coverage, each file in its own process.

    A file's record stays in `folder` until that file, the package, or the tests' shared
    files change.

    Args:
      package: Folder of the package, relative to the current folder.
      folder: The folder for the records.

    Raises:
      SystemExit: If a test fails, or if there is none.
    """
    tests = pathlib.Path("tests", *package.parts[1:])
    files = sorted(tests.rglob("*_test.py"))
    shared = [*package.rglob("*.py"), *set(tests.rglob("*.py")).difference(files)]
    crc = _crc(shared)
    recorded = []
    for file in files:
        name = ".".join(file.with_suffix("").parts)
        kept = folder / f"{name}-{zlib.crc32(file.read_bytes(), crc):08x}.json"
        if not kept.exists():
            print(f"     lines of {file}", flush=True)
            fresh = kept.with_suffix(".part")
            _must_pass(functools.partial(_record, file, package, fresh), file)
            names = [test["name"] for test in json.loads(fresh.read_text("utf-8"))]
            # A name that differs between processes would count as a failed test.
            collect = [*OPTIONS, "--collect-only", *names]
            if names:
                _must_pass(functools.partial(pytest.main, collect), file)
            fresh.rename(kept)
        for test in json.loads(kept.read_text(encoding="utf-8")):
            lines = {m: frozenset(numbers) for m, numbers in test["lines"].items()}
            recorded.append(Recorded(test["name"], test["secs"], lines))
    if not recorded:
        raise SystemExit(f"No tests in `{tests}`.")
    return sorted(recorded, key=lambda test: (test.secs, test.name))


def covering(
    tests: Sequence[Recorded], module: pathlib.Path, lines: Iterable[int]
) -> list[Recorded]:
    """Returns the tests that ran one of the lines; if none did, all of the module.

    Coverage sees no test run a line that AutoGraph rewrote.

    Args:
      tests: The result of `record`.
      module: Path from the root.
      lines: Line numbers; none for code outside of all functions.
    """
    changed = frozenset(lines)
    found = [t for t in tests if changed & t.lines.get(str(module), frozenset())]
    return found or of_module(tests, module)


def of_module(tests: Sequence[Recorded], module: pathlib.Path) -> list[Recorded]:
    """Returns the tests in the test files of a module."""
    files = tuple(mutants.covering_tests(module))
    return [test for test in tests if test.name.startswith(files)]


def within(tests: Sequence[Recorded], secs: float) -> list[Recorded]:
    """Returns the first tests that take `secs` in total, at least one."""
    taken, total = [], 0.0
    for test in tests:
        total += test.secs
        if taken and total > secs:
            break
        taken.append(test)
    return taken
