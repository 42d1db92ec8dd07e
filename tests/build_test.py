"""Tests that `BUILD` lists all files and their imports."""

import ast
import pathlib
import re

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def _targets():
    """Parses `BUILD` as Python: name -> (sources, dependencies)."""
    found = {}
    for node in ast.parse((_ROOT / "BUILD").read_text()).body:
        call = node.value if isinstance(node, ast.Expr) else None
        if not isinstance(call, ast.Call) or call.func.id not in (
            "py_library",
            "py_test",
        ):
            continue
        fields = {keyword.arg: keyword.value for keyword in call.keywords}
        sources = [e.value for e in getattr(fields.get("srcs"), "elts", [])]
        deps = {
            e.value if isinstance(e, ast.Constant) else f"pip:{e.args[0].value}"
            for e in getattr(fields.get("deps"), "elts", [])
        }
        found[fields["name"].value] = (sources, deps)
    return found


def test_every_file_is_in_exactly_one_target():
    listed = [source for sources, _ in _targets().values() for source in sources]
    packages = sorted(p.parent for p in (_ROOT / "monolith_tf").rglob("__init__.py"))
    there = [
        str(path.relative_to(_ROOT))
        for package in packages
        for path in package.glob("*.py")
    ] + [str(p.relative_to(_ROOT)) for p in (_ROOT / "tests").rglob("*_test.py")]
    assert sorted(listed) == sorted(there), "run `python scripts/make_build.py`"


def test_dependencies_are_the_imports():
    # Finds import lines as text, independently of the script that writes `BUILD`.
    line = re.compile(r"^\s*(?:from monolith_tf(?:\.(\w+))?\S* import (\w+)|"
                      r"import monolith_tf(?:\.(\w+))?)", re.MULTILINE)  # fmt: skip
    targets = _targets()
    for name, (sources, deps) in targets.items():
        if not sources:
            continue
        imported = set()
        for source in sources:
            for match in line.finditer((_ROOT / source).read_text()):
                imported.add(match[1] or match[3] or match[2])
        expected = {f":{module}" for module in imported if module in targets}
        named = {dep for dep in deps if dep.startswith(":")} - {":package"}
        missing = expected - named - {f":{name}", ":monolith_tf"}
        assert named - expected == set(), (name, "run scripts/make_build.py")
        assert missing == set(), (name, "run scripts/make_build.py")
