"""Counts the golden cases that a run has passed."""

import json
import pathlib

import pytest

_GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    passed = getattr(getattr(item, "instance", None), "golden_passed", ())
    if call.when == "call" and report.passed:
        report.user_properties.extend(("golden", name) for name in passed)
    return report


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats.get("passed", [])
    passed = {v for r in reports for k, v in r.user_properties if k == "golden"}
    if passed:
        files = sorted(_GOLDEN.glob("*.json"))
        total = sum(len(json.loads(file.read_text())["cases"]) for file in files)
        terminalreporter.write_line(f"golden cases passed: {len(passed)} of {total}")
