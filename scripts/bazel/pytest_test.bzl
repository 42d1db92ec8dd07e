"""A test target that runs pytest."""

load("@pip//:requirements.bzl", "requirement")
load("@rules_python//python:py_test.bzl", "py_test")

_MAIN = "//scripts/bazel:pytest_main.py"

def pytest_test(name, srcs, data = [], deps = [], **kwargs):
    """A `py_test` of files that pytest collects; it fails where one of them does.

    Slow tests are left out, as in CI; `--test_arg=-m --test_arg=slow` runs them alone.

    Args:
      name: The target's name.
      srcs: Test files.
      data: Files that the tests read; `pyproject.toml` is added, where pytest's options are.
      deps: Libraries and requirements that the tests import; pytest is added.
      **kwargs: Other attributes of `py_test`.
    """
    py_test(
        name = name,
        srcs = [_MAIN] + srcs,
        args = ["-m", "'not slow'"] + ["$(rootpath %s)" % src for src in srcs],
        data = ["//:pyproject.toml"] + data,
        env_inherit = ["MONOLITH_TF_TEST_DATA"],
        legacy_create_init = False,
        main = _MAIN,
        timeout = "eternal",
        deps = deps + [
            label
            for label in [requirement("pytest"), requirement("pytest-timeout")]
            if label not in deps
        ],
        **kwargs
    )
