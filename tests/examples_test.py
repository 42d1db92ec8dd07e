"""Runs the docstrings' examples in all packages but `layers`, which has its own."""

import doctest
import importlib
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_MODULES = sorted(
    str(path.relative_to(_ROOT).with_suffix("")).replace("/", ".")
    for path in (_ROOT / "monolith_tf").rglob("[!_]*.py")
    if ">>>" in path.read_text() and path.parent.name not in ("layers", "functional")
)


@pytest.mark.parametrize("name", _MODULES)
def test_examples_print_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples():
    assert "monolith_tf.models.base" in _MODULES
