"""Tests that the Bazel files agree with the tree: its files, imports and versions.

The checks run the files in a Starlark interpreter. Each is also shown a copy with a
mistake, which it must name.
"""

import ast
import functools
import graphlib
import importlib.metadata
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

import packaging.markers
import packaging.requirements
import pytest
import starlark

from tests import bazel_files

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_BAZEL_FILES = (
    "BUILD",
    "MODULE.bazel",
    "constraints.txt",
    "setup.py",
    "scripts/bazel/pytest_main.py",
    "scripts/bazel/pytest_test.bzl",
)


def test_the_build_file_is_what_the_code_asks_for():
    path = _ROOT / "scripts" / "make_build.py"
    spec = importlib.util.spec_from_file_location("make_build", path)
    make_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_build)
    written = (_ROOT / "BUILD").read_text()
    assert written == make_build.text(), "run `python scripts/make_build.py`"


def test_bazel_files_agree_with_the_tree():
    assert _problems(_ROOT) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "BUILD",
            'glob(["monolith_tf/data/**/*.py"]),\n    deps = [\n        ":base",\n'
            '        ":features",\n',
            'glob(["monolith_tf/data/**/*.py"]),\n    deps = [\n        ":base",\n',
            "//:data: monolith_tf/data/.* imports monolith_tf.features.*//:features",
        ),
        (
            "BUILD",
            'deps = [\n        ":base"',
            'deps = [\n        ":bass",\n        ":base"',
            "//:.*: deps has //:bass, which is not there",
        ),
        (
            "BUILD",
            '    name = "distribute",\n',
            '    name = "distributed",\n',
            "//:.*: deps has //:distribute, which is not there",
        ),
        (
            "BUILD",
            'monolith_tf/losses/**/*.py"]),\n    deps = [\n',
            'monolith_tf/losses/**/*.py"]),\n    deps = [\n        ":metrics",\n',
            "//:losses: deps has //:metrics, which it does not import",
        ),
        (
            "BUILD",
            'requirement("pyarrow")',
            'requirement("pyarow")',
            "//:.*: deps has @pip//pyarow, which constraints.txt does not have",
        ),
        (
            "BUILD",
            '        requirement("grpcio"),\n',
            "",
            "//:serving: monolith_tf/serving/.*.py imports grpc of grpcio",
        ),
        (
            "BUILD",
            'srcs = glob(["tests/cli/*_test.py"])',
            'srcs = glob(["tests/cli/[a-l]*_test.py"])',
            "tests/cli/main_test.py is in no target",
        ),
        (
            "BUILD",
            'srcs = glob(["tests/cli/*_test.py"])',
            'srcs = glob(["tests/cli/*_test.py"], exclude = ["tests/cli/main*"])',
            "tests/cli/main_test.py is in no target",
        ),
        (
            "BUILD",
            'srcs = glob(["tests/losses/*_test.py"])',
            'srcs = glob(["tests/l*/*_test.py"])',
            "tests/layers/mlp_test.py is in //:layers_test and //:losses_test",
        ),
        (
            "BUILD",
            'srcs = ["monolith_tf/__main__.py"]',
            'srcs = ["monolith_tf/__run__.py"]',
            "//:monolith_tf: srcs has //:monolith_tf/__run__.py, which is not there",
        ),
        (
            "BUILD",
            'glob(["configs/*"])',
            'glob(["config/*"])',
            r"glob\(\['config/\*'\]\) matches no file",
        ),
        (
            "BUILD",
            '    data = [\n        ":docs",\n        ":golden",\n    ],\n',
            '    data = [":docs"],\n',
            "//:layers_test: tests/layers/.*_test.py reads tests/golden",
        ),
        (
            "BUILD",
            'tests/export/*_test.py"]),\n    data = [":configs"],\n',
            'tests/export/*_test.py"]),\n',
            "//:export_test: tests/export/configs_test.py reads configs",
        ),
        (
            "BUILD",
            '    data = [":census_income"],\n',
            "",
            "//:models_test: configs/census_mmoe.yaml reads data/census_income/t",
        ),
        (
            "BUILD",
            '        requirement("tensorflow"),\n',
            '        ":cli",\n',
            "libraries in a circle: .*//:base",
        ),
        ("BUILD", "\nfilegroup(", "\nfor x in []:\n    filegroup(", "`for` cannot be"),
        ("BUILD", '"golden"', '"testing"', "//:testing is there twice"),
        (
            "scripts/bazel/pytest_test.bzl",
            "main = _MAIN,",
            "main = srcs[0],",
            "//:cli_test: its main is //:tests/cli/.*_test.py, not pytest",
        ),
        (
            "scripts/bazel/pytest_test.bzl",
            "srcs = [_MAIN] + srcs,",
            "srcs = srcs,",
            "//:cli_test: its main is not in srcs",
        ),
        (
            "scripts/bazel/pytest_test.bzl",
            "% src for src in srcs]",
            "% src for src in srcs[1:]]",
            "//:cli_test: pytest is not given tests/cli/.*_test.py",
        ),
        ("MODULE.bazel", '    "3.13",\n', "", "Python 3.13 has no toolchain"),
        (
            "MODULE.bazel",
            '"//:constraints.txt"',
            '"//:lock.txt"',
            "pip.parse reads //:lock.txt, which is not there",
        ),
        ("MODULE.bazel", '"0.1.0"', '"0.2.0"', "is version 0.2.0, setup.py's is 0.1.0"),
        ("MODULE.bazel", 'use_repo(pip, "pip")', "", "no repository is called pip"),
        (
            "MODULE.bazel",
            'bazel_dep(name = "rules_python"',
            'bazel_dep(name = "rules_pythons"',
            "rules_python is no bazel_dep",
        ),
        (
            "constraints.txt",
            "numpy==",
            "numpy>=",
            "constraints.txt: numpy>=.* is not pinned",
        ),
        (
            "constraints.txt",
            "tensorboard-data-server==",
            "other==",
            "tensorboard needs tensorboard_data_server, which is not in constr",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path, file, old, new, expected):
    root = _copy(tmp_path / "copy")
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    assert re.search(expected, "\n".join(_problems(root)))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("def test_it():\n    assert 1 == 1\n", 0),
        ("def test_it():\n    assert 1 == 2\n", 1),
        ("import no_such_module\n", 2),
        ("", 5),
    ],
)
def test_the_main_of_a_test_target_exits_with_the_status_of_pytest(
    tmp_path, body, status
):
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "it_test.py").write_text(body)
    done = subprocess.run(
        [sys.executable, _ROOT / "scripts" / "bazel" / "pytest_main.py", "it_test.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr


def _copy(root):
    """Copies the tree: links, but for the files that a test changes."""
    root.mkdir()
    for path in _ROOT.iterdir():
        if path.name not in ("scripts", ".git", ".venv", *_BAZEL_FILES):
            (root / path.name).symlink_to(path)
    (root / "scripts").mkdir()
    for path in (_ROOT / "scripts").iterdir():
        if path.name != "bazel":
            (root / "scripts" / path.name).symlink_to(path)
    shutil.copytree(_ROOT / "scripts" / "bazel", root / "scripts" / "bazel")
    for name in _BAZEL_FILES:
        shutil.copy(_ROOT / name, root / name)
    return root


def _problems(root):
    """Returns what is wrong with the Bazel files of a tree, one line each."""
    workspace = bazel_files.Workspace(root)
    checks = (_labels, _owners, _mains, _imports, _requirements, _data, _circles)
    found = [problem for check in checks for problem in check(workspace)]
    return [*workspace.problems, *found, *_module(root), *_lock(root)]


def _labels(workspace):
    """All that targets name is there."""
    locked = bazel_files.locked(workspace.root)
    for target in workspace.targets.values():
        for attribute in ("srcs", "data", "deps"):
            for label in target.labels(attribute):
                where = f"{target.label}: {attribute} has {label}"
                if label.startswith("@pip//"):
                    if label.removeprefix("@pip//") not in locked:
                        yield f"{where}, which constraints.txt does not have"
                elif label in workspace.targets:
                    rule = workspace.targets[label].rule
                    if attribute == "deps" and rule != "py_library":
                        yield f"{where}, which is a {rule}"
                elif attribute == "deps" or workspace.file(label) is None:
                    yield f"{where}, which is not there"
                elif (
                    _package(label) != _package(target.label)
                    and label not in workspace.exported
                ):
                    yield f"{where}, which its package does not export"


def _package(label):
    return label.partition(":")[0]


def _owners(workspace):
    """Each file of Python is in exactly one target."""
    owners = {}
    for target in workspace.python_targets():
        for label in target.labels("srcs"):
            owners.setdefault(workspace.file(label), []).append(target.label)
    for folder in ("monolith_tf", "tests", "examples", "scripts"):
        for path in sorted((workspace.root / folder).glob("**/*.py")):
            name = path.relative_to(workspace.root).as_posix()
            if re.match("tests/golden/|tests/.*testdata/|scripts/bazel/", name):
                continue
            found = sorted(owners.get(name, []))
            if not found:
                yield f"{name} is in no target"
            if len(found) > 1:
                yield f"{name} is in {' and '.join(found)}"


def _mains(workspace):
    """Each test runs pytest on all of its files."""
    for target in workspace.python_targets():
        if target.rule != "py_test":
            continue
        main, srcs = target.attributes["main"], target.labels("srcs")
        if main not in srcs:
            yield f"{target.label}: its main is not in srcs"
        path = workspace.file(main)
        text = (workspace.root / path).read_text() if path else ""
        if "pytest.main(" not in text or "sys.exit(main(" not in text:
            yield f"{target.label}: its main is {main}, not pytest"
        for label in set(srcs) - {main}:
            file = workspace.file(label)
            if f"$(rootpath {file})" not in target.attributes["args"]:
                yield f"{target.label}: pytest is not given {file}"


# Found by the text of import lines, another way than the writer of `BUILD` has.
_OURS = re.compile(
    r"^\s*(?:from ((?:monolith_tf|tests)\S*) import (\w+)|import (monolith_tf\S*))",
    re.MULTILINE,
)


@functools.cache
def _our_modules(path):
    """Returns the names of ours that a file imports, in strings too."""
    matches = _OURS.finditer(path.read_text())
    return sorted({match[3] or f"{match[1]}.{match[2]}" for match in matches})


def _imports(workspace):
    """Libraries are the imports: none is missing, and a library names no other."""
    owners = {
        workspace.file(label): target.label
        for target in workspace.python_targets()
        for label in target.labels("srcs")
    }
    for target in workspace.python_targets():
        needed = set()
        for file in _sources(workspace, target):
            for module in _our_modules((workspace.root / file).resolve()):
                owner = owners.get(_module_file(workspace.root, module))
                needed.add(owner)
                if owner not in (None, target.label, *target.labels("deps")):
                    yield f"{target.label}: {file} imports {module} of {owner}"
        if target.rule == "py_library" and target.label != "//:monolith_tf":
            ours = {d for d in target.labels("deps") if d in workspace.targets}
            for label in sorted(ours - needed):
                yield f"{target.label}: deps has {label}, which it does not import"


def _module_file(root, module):
    """Returns the file of a module, or of the module that a name is in."""
    path = module.replace(".", "/")
    above = path.rpartition("/")[0]
    for name in (f"{path}.py", f"{path}/__init__.py", f"{above}.py"):
        if (root / name).is_file():
            return name
    return f"{above}/__init__.py"


def _requirements(workspace):
    """Requirements are the imports of other projects' modules."""
    locked = bazel_files.locked(workspace.root)
    distributions = _distributions()
    for target in workspace.python_targets():
        named = {d.removeprefix("@pip//") for d in target.labels("deps")}
        for file in _sources(workspace, target):
            for module in _modules((workspace.root / file).resolve()):
                having = distributions.get(module, {module}) & set(locked)
                if having and not having & named:
                    which = " or ".join(sorted(having))
                    yield f"{target.label}: {file} imports {module} of {which}"


@functools.cache
def _distributions():
    """Returns module -> normal names of the distributions installed that have it."""
    return {
        module: {bazel_files.normal(name) for name in names}
        for module, names in importlib.metadata.packages_distributions().items()
    }


@functools.cache
def _modules(path):
    """Returns the first names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def _data(workspace):
    """What tests read by a path from their own file comes with their target."""
    for target in workspace.python_targets():
        if target.rule != "py_test":
            continue
        there = workspace.files(target.label)
        for file in _sources(workspace, target):
            for path in _paths_read((workspace.root / file).resolve(), file):
                if not any(f"{name}/".startswith(f"{path}/") for name in there):
                    yield f"{target.label}: {file} reads {path}"
        for config in sorted(name for name in there if name.startswith("configs/")):
            for path in _data_of(workspace.root / config):
                if (workspace.root / path).exists() and path not in there:
                    yield f"{target.label}: {config} reads {path}"


def _data_of(config):
    """Returns the paths below `data` that a config names, relative to the root."""
    return set(re.findall(r"\bdata/\w+/[\w.]+", config.read_text()))


def _sources(workspace, target):
    """Returns the paths of a target's own files, those that are there."""
    return filter(None, map(workspace.file, target.labels("srcs")))


@functools.cache
def _paths_read(path, file):
    """Returns the paths that a test makes from its `__file__`, relative to the root."""
    tree = ast.parse(path.read_text())
    file = pathlib.Path(file)
    names, found = {"__file__": file}, set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _path(node.value, names)
            if value is not None:
                names[node.targets[0].id] = value
    for node in ast.walk(tree):
        value = _path(node, names)
        if value is not None and value not in (file, *file.parents):
            found.add(value)
        if isinstance(node, ast.Call) and re.search(
            r"\b(golden_cases|load_golden|golden\.find)$", ast.unparse(node.func)
        ):
            found.add(pathlib.Path("tests/golden"))
    inner = {parent for path in found for parent in path.parents}
    return sorted(path.as_posix() for path in found - inner)


def _path(node, names):
    """Returns the path that an expression makes from `__file__`, or None."""
    match node:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Call(func=ast.Attribute(attr="Path"), args=[argument]):
            return _path(argument, names)
        case ast.Call(func=ast.Attribute(value=value, attr="resolve")):
            return _path(value, names)
        case ast.Attribute(value=value, attr="parent"):
            path = _path(value, names)
            return path and path.parent
        case ast.Subscript(
            value=ast.Attribute(value=value, attr="parents"),
            slice=ast.Constant(value=number),
        ):
            path = _path(value, names)
            return path and path.parents[number]
        case ast.BinOp(left=left, op=ast.Div(), right=ast.Constant(value=str(name))):
            path = _path(left, names)
            return path and path / name
    return None


def _circles(workspace):
    """No library depends on itself."""
    graph = {
        target.label: [d for d in target.labels("deps") if d in workspace.targets]
        for target in workspace.python_targets()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"libraries in a circle: {' -> '.join(error.args[1])}"


def _module(root):
    """`MODULE.bazel` has the project's version, its Pythons and its lock."""
    try:
        calls = bazel_files.module_calls(root)
    except starlark.StarlarkError as error:
        yield str(error)
        return
    setup = (root / "setup.py").read_text()
    version = re.search(r'version="(.*?)"', setup)[1]
    low, high = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', setup).groups()
    pythons = {f"3.{minor}" for minor in range(int(low), int(high))}
    given = {}
    for name, arguments in calls:
        given.setdefault(name, []).append(arguments)
    (module,) = given["module"]
    if module != {"name": "monolith_tf", "version": version}:
        yield f"MODULE.bazel is version {module['version']}, setup.py's is {version}"
    if "rules_python" not in [dep["name"] for dep in given.get("bazel_dep", [])]:
        yield "MODULE.bazel: rules_python is no bazel_dep"
    toolchains = {call["python_version"] for call in given["_toolchain"]}
    hub = {call["python_version"] for call in given["_parse"]}
    for python in sorted(pythons ^ toolchains):
        has = "is no Python of setup.py" if python in toolchains else "has no toolchain"
        yield f"MODULE.bazel: Python {python} {has}"
    for python in sorted(pythons ^ hub):
        yield f"MODULE.bazel: Python {python} is in setup.py or pip.parse, not in both"
    for call in given["_parse"]:
        lock = call["requirements_lock"]
        if not (root / lock.removeprefix("//:")).is_file():
            yield f"MODULE.bazel: pip.parse reads {lock}, which is not there"
        elif lock != "//:constraints.txt" or call["hub_name"] != "pip":
            yield f"MODULE.bazel: {call} is not the lock that BUILD uses"
    if {"names": ["pip"]} not in given.get("_use_repo", []):
        yield "MODULE.bazel: no repository is called pip"
    ignored = (root / ".bazelignore").read_text().split()
    if ".venv" not in ignored:  # TensorFlow's headers have `BUILD` files.
        yield ".bazelignore: .venv is not in it"


def _lock(root):
    """The lock pins each requirement, and all that each requires on Linux."""
    locked = bazel_files.locked(root)
    for name, line in locked.items():
        if not re.fullmatch(r"[\w.-]+==[\w.]+", line):
            yield f"constraints.txt: {line} is not pinned"
        for needed in sorted(_required(name) - set(locked)):
            yield f"{name} needs {needed}, which is not in constraints.txt"


@functools.cache
def _required(name):
    """Returns what an installed distribution requires on some Python; else nothing."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    here = packaging.markers.default_environment()
    pythons = [
        {**here, "python_version": version, "python_full_version": f"{version}.0"}
        for version in ("3.11", "3.12", "3.13")
    ]
    requirements = map(packaging.requirements.Requirement, lines)
    return {
        bazel_files.normal(requirement.name)
        for requirement in requirements
        if requirement.marker is None
        or any(requirement.marker.evaluate({**p, "extra": ""}) for p in pythons)
    }
