"""Makes a change, and runs the tests that cover its lines."""

import difflib
import functools
import pathlib

import forked
import mutants
import pytest
import recorded
from cosmic_ray import mutating
from cosmic_ray import plugins
from cosmic_ray.work_item import TestOutcome
from cosmic_ray.work_item import WorkerOutcome
from cosmic_ray.work_item import WorkItem
from cosmic_ray.work_item import WorkResult

# Time limit in total for the tests of a change, unless every test is requested.
_SECS = 120.0


def _impossible(why: str) -> WorkResult:
    return WorkResult(worker_outcome=WorkerOutcome.EXCEPTION, output=why)


class Trials:
    """Tries a change: runs the tests that cover its lines."""

    def __init__(
        self, tests: list[recorded.Recorded], timeout: float | None, *, every_test: bool
    ) -> None:
        self._tests = tests
        self._timeout = timeout
        self._every_test = every_test

    def _chosen(
        self, item: WorkItem, source: str
    ) -> tuple[list[recorded.Recorded], str]:
        """Returns the tests to run, shortest first, and a note to print."""
        (mutation,) = item.mutations
        lines = range(mutation.start_pos[0], mutation.end_pos[0] + 1)
        lines = mutants.lines_that_run(source, lines)
        covering = recorded.covering(self._tests, mutation.module_path, lines)
        if self._every_test:
            names = {test.name for test in covering}
            others = recorded.of_module(self._tests, mutation.module_path)
            chosen = covering + [test for test in others if test.name not in names]
            return chosen, f"tests: {len(chosen)}"
        chosen = recorded.within(covering, _SECS)
        cut = covering[len(chosen) :]
        said = f"tests: {len(chosen)}"
        if cut:
            secs = sum(test.secs for test in cut)
            said += f", cut: {len(cut)} of {secs:.0f} s"
        return chosen, said

    def __call__(self, item: WorkItem) -> tuple[WorkResult, str]:
        """Returns the result, and which tests ran."""
        (mutation,) = item.mutations
        path = mutation.module_path
        operator = plugins.get_operator(mutation.operator_name)(
            **mutation.operator_args
        )
        before = path.read_text(encoding="utf-8")
        try:
            after = mutating.mutate_code(before, operator, mutation.occurrence)
        except Exception as error:
            # Such as `a.Error` in `except (a.Error, b.Error)`.
            return _impossible(f"{type(error).__name__}: {error}"), ""
        if after is None:
            return _impossible("no change"), ""
        tests, said = self._chosen(item, before)
        limit = self._timeout or 60 + 3 * sum(test.secs for test in tests)
        names = [test.name for test in tests]
        work = functools.partial(pytest.main, ["-x", *recorded.OPTIONS, *names])
        output = pathlib.Path("output").absolute()
        path.write_text(after, encoding="utf-8")
        try:
            code = forked.run(work, output, limit)
        finally:
            path.write_text(before, encoding="utf-8")
        result = WorkResult(
            worker_outcome=WorkerOutcome.NORMAL,
            output="timeout" if code is None else output.read_text(errors="replace"),
            test_outcome=TestOutcome.SURVIVED if code == 0 else TestOutcome.KILLED,
            diff="\n".join(
                difflib.unified_diff(before.split("\n"), after.split("\n"), lineterm="")
            ),
        )
        return result, said
