"""Tests that `docs/layers.md` matches the docstrings."""

import importlib.util
import pathlib

from monolith_tf import layers

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def _script():
    path = _ROOT / "scripts" / "make_layer_docs.py"
    spec = importlib.util.spec_from_file_location("make_layer_docs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_code():
    page = (_ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    assert page == _script().text(), "run `python scripts/make_layer_docs.py`"


def test_every_layer_has_a_formula_and_shapes():
    page = (_ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    table = page.partition("\nFunctions:\n")[0].replace(r"\|", "/")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| **")]
    named = set()
    for _, title, formula, shapes, paper, _ in rows:
        names = title.partition("<br>")[0].replace("*", "").replace(",", " ").split()
        named.update(names)
        assert formula.count("`") >= 2, names
        assert shapes.startswith((" in: ", " in and out: ")), names
        assert "<br>out: " in shapes or shapes.startswith(" in and"), names
        assert paper.strip(), names
    assert named == {*layers.LAYERS, "FFM"}
