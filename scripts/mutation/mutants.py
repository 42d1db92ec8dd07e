"""Draws mutants of a package, and finds the tests that cover a module."""

import ast
import collections
import pathlib
import random
import re
from collections.abc import Iterable

from cosmic_ray.commands import init
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import WorkItem

_NODES = (ast.AnnAssign, ast.arg)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _without_effect(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Returns start and end of each place where no test can notice a change.

    These are annotations, and arguments that only guard against mistakes in the code
    itself: `strict` of `zip`, and `kw_only` of dataclasses.
    """
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _NODES):
            found.append(node.annotation)
        elif isinstance(node, _FUNCTIONS):
            found.append(node.returns)
        elif isinstance(node, ast.keyword) and node.arg in ("strict", "kw_only"):
            found.append(node.value)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
        for node in found
        if node is not None
    ]


def _changes(path: pathlib.Path) -> list[WorkItem]:
    """Returns all changes of a file, in an order independent of their ids."""
    database = WorkDB(":memory:", WorkDB.Mode.create)
    init([path], database, {})
    items = sorted(
        database.work_items,
        key=lambda item: (
            item.mutations[0].operator_name,
            item.mutations[0].occurrence,
        ),
    )
    database.close()
    return items


def draw(package: pathlib.Path, count: int, seed: int) -> list[WorkItem]:
    """Returns up to `count` mutants, at most one at each place.

    Places are drawn first, then one change at each: a comparison, which has many
    possible changes, weighs no more than a number.

    Args:
      package: Folder of the package, relative to the current folder.
      count: Largest number of mutants.
      seed: Seed of the draw; the same seed and source give the same mutants.
    """
    places = collections.defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        ignored = _without_effect(path.read_text(encoding="utf-8"))
        for item in _changes(path):
            (mutation,) = item.mutations
            start, end = tuple(mutation.start_pos), tuple(mutation.end_pos)
            if not any(a <= start < b for a, b in ignored):
                places[str(path), start, end].append(item)
    rng = random.Random(seed)
    drawn = rng.sample(sorted(places), min(count, len(places)))
    return [rng.choice(places[place]) for place in drawn]


def lines_that_run(source: str, lines: Iterable[int]) -> list[int]:
    """Returns lines that run wherever a change of some lines has an effect.

    A change in a function's head, such as a default, has an effect in its body; one of
    a module's constant, where functions use it. Another change outside of all functions
    may have an effect anywhere: no lines.

    Args:
      source: The module's source.
      lines: Numbers of adjacent lines, from 1.
    """
    lines = list(lines)
    tree = ast.parse(source)
    innermost = None
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            begin = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            is_inside = begin <= lines[0] <= (node.end_lineno or begin)
            if is_inside and (innermost is None or node.lineno > innermost.lineno):
                innermost = node
    if innermost is None:
        return _uses(tree, _constants(tree, lines[0]))
    body = range(innermost.body[0].lineno, (innermost.end_lineno or 0) + 1)
    return lines if lines[0] in body else list(body)


def _constants(tree: ast.Module, line: int) -> set[str]:
    """Returns the names that the module's statement at a line assigns to."""
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and node.lineno <= line <= (node.end_lineno or 0)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _uses(tree: ast.Module, names: set[str]) -> list[int]:
    """Returns the lines inside functions that read names."""
    return sorted(
        {
            node.lineno
            for function in ast.walk(tree)
            if isinstance(function, _FUNCTIONS)
            for statement in function.body
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and node.id in names
        }
    )


def covering_tests(module: pathlib.Path) -> list[str]:
    """Returns the test files of a module, its own first.

    These are `<module>_test.py` and the files in the same folder of `tests` that import
    the module. A module without any is covered by the whole folder.

    Args:
      module: Path from the root, such as `monolith_tf/training/loop.py`.
    """
    parent = pathlib.Path("tests", *module.parts[1:-1])
    own = parent / f"{module.stem}_test.py"
    dotted = ".".join(module.parts[:-1])
    imports = re.compile(
        rf"from {re.escape(dotted)} import {module.stem}\b"
        rf"|(from|import) {re.escape(dotted)}\.{module.stem}\b"
    )
    others = [
        path
        for path in sorted(parent.glob("*_test.py"))
        if path != own and imports.search(path.read_text(encoding="utf-8"))
    ]
    found = [own, *others] if own.exists() else others
    return [str(path) for path in found or [parent]]
