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
    if _OWN_PROCESS not in os.environ:
        own = [item for item in items if item.get_closest_marker("own_process")]
        for item in own:
            ids = [other.nodeid for other in own if other.path == item.path]
            items[items.index(item)] = OwnProcessItem.of(item, ids)
    long = {item.path for item in items if item.get_closest_marker("timeout")}
    sizes = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in long, -sizes[item.path]))


class OwnProcessItem(pytest.Item):
    """A test that runs in another process, with the others of its file."""

    @classmethod
    def of(cls, item, ids):
        made = cls.from_parent(item.parent, name=item.name)
        made.own_markers = list(item.iter_markers())
        made.ids = ids
        return made

    def runtest(self):
        passed, output = _in_own_process(self.config.rootpath, tuple(self.ids))
        assert self.nodeid in passed, output[-8000:]

    def reportinfo(self):
        return self.path, None, self.nodeid


@functools.cache
def _in_own_process(root, ids):
    """Returns the ids of the tests that passed, and the output."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--rootdir={root}", *ids],
        cwd=root,
        env=os.environ | {_OWN_PROCESS: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    passed = {line.partition(" ")[2] for line in lines if line.startswith("PASSED ")}
    return passed, done.stdout


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
