"""Writes `BUILD` from the imports in the code: `python scripts/make_build.py`."""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "monolith_tf"
# Distribution names that differ from the import name.
REQUIREMENTS = {
    "absl": "absl_py",
    "google": "protobuf",
    "grpc": "grpcio",
    "sklearn": "scikit_learn",
    "tensorflow_serving": "tensorflow_serving_api",
    "yaml": "pyyaml",
}

HEADER = '''"""Bazel targets: a library per package or module, a test per file.

Made by `python scripts/make_build.py` from the imports in the code; a test compares.
"""

load("@pip//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])
'''


def main() -> None:
    """Writes the file."""
    (ROOT / "BUILD").write_text(text(), encoding="utf-8")


def text() -> str:
    """Returns the content of `BUILD`."""
    blocks = [HEADER]
    package = ROOT / PACKAGE
    libraries = {
        "package": [package / "__init__.py"],
        **{
            path.stem: [path]
            for path in sorted(package.glob("*.py"))
            if path.stem != "__init__"
        },
        **{
            path.name: sorted(path.rglob("*.py"))
            for path in sorted(package.iterdir())
            if (path / "__init__.py").exists()
        },
    }
    for name, files in libraries.items():
        deps = dependencies(files, libraries) - {f":{name}"}
        blocks.append(target("py_library", name, sources(files), deps))
    everything = {f":{name}" for name in libraries}
    blocks.append(target("py_library", PACKAGE, [], everything))
    for path in sorted((ROOT / "tests").rglob("*_test.py")):
        relative = path.relative_to(ROOT)
        name = str(relative.with_suffix("")).replace("/", "_")
        deps = dependencies([path], libraries)
        blocks.append(target("py_test", name, [str(relative)], deps))
    return "\n".join(blocks)


def sources(files: list[pathlib.Path]) -> list[str]:
    """Returns a target's sources, relative to the root."""
    return [str(path.relative_to(ROOT)) for path in files]


def dependencies(files: list[pathlib.Path], libraries: dict[str, list]) -> set[str]:
    """Returns the targets and requirements that the files import."""
    found = set()
    for path in files:
        for module in imported(path):
            parts = module.split(".")
            if parts[0] == PACKAGE:
                found.add(":package")
                if len(parts) > 1 and parts[1] in libraries:
                    found.add(f":{parts[1]}")
            elif parts[0] not in sys.stdlib_module_names and parts[0] != "tests":
                found.add(REQUIREMENTS.get(parts[0], parts[0]))
    return found


def imported(path: pathlib.Path) -> set[str]:
    """Returns the full names of all imports of a file, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def target(rule: str, name: str, srcs: list[str], deps: set[str]) -> str:
    """Returns one target."""
    lines = [f"{rule}(", f'    name = "{name}",']
    if srcs:
        lines.append("    srcs = [")
        lines += [f'        "{source}",' for source in srcs]
        lines.append("    ],")
    if rule == "py_test":
        lines.append(f'    main = "{srcs[0]}",')
    ours = sorted(dep for dep in deps if dep.startswith(":"))
    others = sorted(dep for dep in deps if not dep.startswith(":"))
    if deps:
        lines.append("    deps = [")
        lines += [f'        "{dep}",' for dep in ours]
        lines += [f'        requirement("{dep}"),' for dep in others]
        lines.append("    ],")
    lines += [")", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
