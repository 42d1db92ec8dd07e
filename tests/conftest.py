"""What all tests share: small tables, and a count of the golden cases passed."""

import collections
import functools
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys

import pytest

_OWN_PROCESS = "MONOLITH_TF_TEST_HAS_OWN_PROCESS"
_GOLDEN = pathlib.Path(__file__).parent / "golden"


def pytest_configure():
    """Undoes `nohup` and `&`: programs that tests start inherit what is ignored."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, default in defaults.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, default)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Starts files with long tests first, which would run alone at the end.

    Those are tests with a longer time limit. Files of many tests follow, as in
    `--loadscope-reorder`.
    """
    for item in items:
        if item.get_closest_marker("own_process") and _OWN_PROCESS not in os.environ:
            item.runtest = functools.partial(_run_in_own_process, item)
    long = {item.path for item in items if item.get_closest_marker("timeout")}
    sizes = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in long, -sizes[item.path]))


def _run_in_own_process(item):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--rootdir={item.config.rootpath}", item.nodeid],
        cwd=item.config.rootpath,
        env=os.environ | {_OWN_PROCESS: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.fixture(autouse=True)
def small_tables(monkeypatch):
    """Reserves little memory by default; many tests share the memory of a process."""
    sizing = sys.modules.get("monolith_tf.embedding.shard.sizing")
    if sizing is not None:
        monkeypatch.setattr(sizing, "_SHARE_OF_MEMORY", 1 / 1024)


@pytest.fixture(autouse=True)
def no_log_left():
    """Takes absl's log back from a command, whose output ends with its test."""
    logger = logging.getLogger("absl")
    handlers, propagate = logger.handlers, logger.propagate
    yield
    if logger.handlers != handlers:
        logger.handlers, logger.propagate = handlers, propagate


@pytest.fixture(autouse=True)
def no_determinism_left():
    """Ends op determinism after a test; it is for the process, and servers lack it."""
    yield
    config = sys.modules.get("tensorflow.python.framework.config")
    if config is not None and config.is_op_determinism_enabled():
        config.disable_op_determinism()


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
