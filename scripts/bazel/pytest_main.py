"""The program of a Bazel test target: runs pytest, and exits with its status.

Its arguments are pytest's: the files of the target and options.
"""

import os
import sys

import pytest


def main(arguments: list[str]) -> int:
    """Runs pytest as Bazel's environment asks, in the root of the runfiles.

    Args:
      arguments: Files and options of pytest.

    Returns:
      Pytest's exit status: 0 only where tests ran and none failed.
    """
    # Programs that tests start find the same packages.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    options = ["-c", "pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider"]
    if "XML_OUTPUT_FILE" in os.environ:
        options += ["--junit-xml", os.environ["XML_OUTPUT_FILE"]]
    if "TESTBRIDGE_TEST_ONLY" in os.environ:  # `bazel test --test_filter`
        options += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    return int(pytest.main([*options, *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
