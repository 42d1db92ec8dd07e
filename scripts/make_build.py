"""Writes `BUILD` from the imports in the code: `python scripts/make_build.py`.

A library for each package of `monolith_tf` (its own modules make up `base`), a test
for each folder of `tests`. Files are named by globs, so `BUILD` changes only with
imports and folders.
"""

import ast
import pathlib
import re
import sys
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "monolith_tf"
LOCK = "constraints.txt"

# Requirements whose modules have another name.
REQUIREMENTS = {
    "absl": "absl-py",
    "google": "protobuf",
    "grpc": "grpcio",
    "sklearn": "scikit-learn",
    "starlark": "starlark-pyo3",
    "tensorflow_serving": "tensorflow-serving-api",
    "yaml": "PyYAML",
}

# What the tests of a folder read, beside its own `testdata`.
DATA = {
    "tests": [":configs", ":docs", ":golden", ":project"],
    "tests/cli": [":testdata"],
    "tests/config": [":testdata"],
    "tests/data": [":census_income"],
    "tests/embedding/keras": [":docs"],
    "tests/examples": [":configs"],
    "tests/export": [":configs"],
    "tests/layers": [":docs", ":golden"],
    "tests/layers/parts": [":golden"],
    "tests/models": [":configs"],
    "tests/testing": [":golden"],
}

# Programs that the tests of a folder start, or load by their path.
PROGRAMS = {
    "tests": [":examples", ":scripts"],
    "tests/data": [":scripts"],
    "tests/examples": [":examples"],
    "tests/layers": [":scripts"],
    "tests/scripts": [":scripts"],
}

HEADER = '''"""A library for each package, a test for each folder of tests.

Made by `python scripts/make_build.py` from the imports in the code; a test compares.
"""

load("@pip//:requirements.bzl", "requirement")
load("@rules_python//python:py_library.bzl", "py_library")
load("//scripts/bazel:pytest_test.bzl", "pytest_test")

package(default_visibility = ["//visibility:public"])

filegroup(
    name = "census_income",
    srcs = glob(["data/census_income/*"]),
)

filegroup(
    name = "configs",
    srcs = glob(["configs/*"]),
    data = [":census_income"],
)

filegroup(
    name = "docs",
    srcs = glob(["docs/**"]),
)

filegroup(
    name = "golden",
    srcs = glob(
        ["tests/golden/**"],
        exclude = ["**/__pycache__/**"],
    ),
)

filegroup(
    name = "testdata",
    srcs = glob(
        ["tests/*/testdata/**"],
        exclude = ["**/__pycache__/**"],
    ),
)

filegroup(
    name = "project",
    srcs = [
        ".bazelignore",
        "//scripts/bazel:files",
    ] + glob(
        [
            "*",
            "tests/**",
        ],
        exclude = [
            ".bazelignore",
            "**/__pycache__/**",
        ],
    ),
)
'''


def main() -> None:
    """Writes the file."""
    (ROOT / "BUILD").write_text(text(), encoding="utf-8")


def text() -> str:
    """Returns what `BUILD` should hold."""
    package = ROOT / PACKAGE
    packages = sorted(path.parent.name for path in package.glob("*/__init__.py"))
    modules = sorted(set(package.glob("*.py")) - {package / "__main__.py"})
    blocks = [
        HEADER,
        target(
            "py_library",
            "base",
            srcs='glob(\n        ["monolith_tf/*.py"],\n'
            '        exclude = ["monolith_tf/__main__.py"],\n    )',
            data=[f"{PACKAGE}/py.typed"],
            deps=dependencies(modules) - {":base"},
            imports=True,
        ),
    ]
    for name in packages:
        files = sorted((package / name).rglob("*.py"))
        srcs = glob(f"{PACKAGE}/{name}/**/*.py")
        deps = dependencies(files) - {f":{name}"}
        blocks.append(target("py_library", name, srcs=srcs, deps=deps))
    blocks.append(
        target(
            "py_library",
            PACKAGE,
            srcs=f'["{PACKAGE}/__main__.py"]',
            deps={f":{name}" for name in ["base", *packages]},
        )
    )
    for name in ("examples", "scripts"):
        files = sorted((ROOT / name).rglob("*.py"))
        files = [path for path in files if path.parent != ROOT / "scripts" / "bazel"]
        blocks.append(
            target(
                "py_library",
                name,
                srcs=glob(f"{name}/**/*.py"),
                data=f'glob(\n        ["{name}/**"],\n'
                f'        exclude = [\n            "**/*.py",\n'
                f'            "**/__pycache__/**",\n        ],\n    )',
                deps=dependencies(files, optional=True) - {f":{name}"},
            )
        )
    folders = {path.parent for path in (ROOT / "tests").rglob("*_test.py")}
    for folder in sorted(folders):
        blocks += tests(folder)
    return "\n".join(blocks)


def tests(folder: pathlib.Path) -> list[str]:
    """Returns the targets of a folder of tests, without the folders in it."""
    relative = folder.relative_to(ROOT).as_posix()
    blocks = []
    helpers = [p for p in sorted(folder.glob("*.py")) if not is_test(p)]
    if helpers:
        blocks.append(
            target(
                "py_library",
                support(folder),
                srcs=f'glob(\n        ["{relative}/*.py"],\n'
                f'        exclude = ["{relative}/*_test.py"],\n    )',
                deps=(
                    dependencies(helpers)
                    | ({":base"} & {dep for path in helpers for dep in mentioned(path)})
                )
                - {f":{support(folder)}"},
                testonly=True,
            )
        )
    files = sorted(folder.glob("*_test.py"))
    deps = dependencies(files) | set(PROGRAMS.get(relative, []))
    deps |= {dep for path in files for dep in mentioned(path)}
    for parent in [folder, *folder.parents]:
        if (parent / "conftest.py").exists():
            deps.add(f":{support(parent)}")
    blocks.append(
        target(
            "pytest_test",
            f"{stem(folder)}_test",
            srcs=glob(f"{relative}/*_test.py"),
            data=DATA.get(relative, []),
            deps=deps,
        )
    )
    return blocks


def is_test(path: pathlib.Path) -> bool:
    """Returns whether pytest collects the file."""
    return path.name.endswith("_test.py")


def stem(folder: pathlib.Path) -> str:
    """Returns how the names of the targets of a folder of tests begin."""
    return "_".join(folder.relative_to(ROOT / "tests").parts) or "project"


def support(folder: pathlib.Path) -> str:
    """Returns the name of the library of what a folder's tests share."""
    return f"{stem(folder)}_test_support"


def dependencies(files: Iterable[pathlib.Path], optional: bool = False) -> set[str]:
    """Returns the targets and requirements that the files import.

    Args:
      files: Files of one target.
      optional: Whether to leave out what is in no lock, such as the libraries that a
        benchmark compares with.
    """
    found = set()
    for path in files:
        for module in imported(path):
            found.add(dependency(module, path, optional))
    return found - {""}


def dependency(module: str, path: pathlib.Path, optional: bool) -> str:
    """Returns the target or requirement that has a module; "" for Python's own."""
    first, *rest = module.split(".")
    if first == PACKAGE:
        is_package = rest and (ROOT / PACKAGE / rest[0] / "__init__.py").exists()
        return f":{rest[0]}" if is_package else ":base"
    if first == "tests":
        # Another test's constants are in the target already.
        file = ROOT.joinpath("tests", *rest[:-1]).with_suffix(".py")
        helpers = file.parent if file.exists() else ROOT.joinpath("tests", *rest[:-1])
        if file.exists() and is_test(file) and file.parent == path.parent:
            return ""
        return f":{support(helpers)}"
    if first in sys.stdlib_module_names:
        return ""
    pinned = locked().get(normal(REQUIREMENTS.get(first, first)))
    if pinned:
        return pinned
    if any((ROOT / "scripts").rglob(f"{first}.py")) or any(
        (ROOT / "scripts").rglob(f"{first}/")
    ):
        return ":scripts"
    if optional:
        return ""
    raise SystemExit(
        f"{path.relative_to(ROOT)} imports {first}, which {LOCK} does not have: "
        f"add it, or its distribution's name to REQUIREMENTS in scripts/make_build.py."
    )


def locked() -> dict[str, str]:
    """Returns the requirements of the lock file: normal name -> name there."""
    lines = (ROOT / LOCK).read_text(encoding="utf-8").splitlines()
    names = [line.split("==")[0] for line in lines if "==" in line]
    return {normal(name): name for name in names}


def normal(name: str) -> str:
    """Returns a requirement's name in the form of the hub's labels."""
    return re.sub(r"[-_.]+", "_", name).lower()


def imported(path: pathlib.Path) -> set[str]:
    """Returns the full names of all that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def mentioned(path: pathlib.Path) -> set[str]:
    """Returns the targets that programs in a test's strings import or run."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value == PACKAGE or f"-m {PACKAGE}" in node.value:
                found.add(f":{PACKAGE}")
            if re.search(rf"import {PACKAGE}\b", node.value):
                found.add(":base")
            for name in re.findall(rf"{PACKAGE}(?:\.| import )(\w+)", node.value):
                if (ROOT / PACKAGE / name / "__init__.py").exists():
                    found.add(f":{name}")
    return found


def glob(pattern: str) -> str:
    """Returns a call of Bazel's `glob`."""
    return f'glob(["{pattern}"])'


def target(
    rule: str,
    name: str,
    srcs: str,
    deps: Iterable[str] = (),
    data: str | Iterable[str] = (),
    testonly: bool = False,
    imports: bool = False,
) -> str:
    """Returns one target, in buildifier's form."""
    lines = [f"{rule}(", f'    name = "{name}",']
    if testonly:
        lines.append("    testonly = True,")
    lines.append(f"    srcs = {srcs},")
    if isinstance(data, str):
        lines.append(f"    data = {data},")
    elif data:
        lines += listed("data", [f'"{label}"' for label in sorted(data)])
    if imports:
        lines.append('    imports = ["."],')
    ours = sorted(dep for dep in deps if dep.startswith(":"))
    others = sorted((dep for dep in deps if not dep.startswith(":")), key=str.lower)
    if deps:
        lines += listed(
            "deps",
            [f'"{dep}"' for dep in ours] + [f'requirement("{dep}")' for dep in others],
        )
    lines += [")", ""]
    return "\n".join(lines)


def listed(attribute: str, values: list[str]) -> list[str]:
    """Returns the lines of an attribute that is a list."""
    if len(values) == 1:
        return [f"    {attribute} = [{values[0]}],"]
    return [f"    {attribute} = [", *(f"        {v}," for v in values), "    ],"]


if __name__ == "__main__":
    main()
