"""`BUILD`, `MODULE.bazel` and `.bzl` files as Bazel reads them, without Bazel.

A Starlark interpreter runs the files; the rules only note their arguments.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import starlark

# Labels of packages that have a `BUILD`.
PACKAGES = ("", "scripts/bazel")

# The extensions that `MODULE.bazel` may use, with their tags.
_EXTENSIONS = """
def use_extension(label, _name):
    return {
        "@rules_python//python/extensions:python.bzl": struct(
            defaults = _defaults,
            toolchain = _toolchain,
        ),
        "@rules_python//python/extensions:pip.bzl": struct(parse = _parse),
    }[label]

def use_repo(extension, *names):
    _use_repo(names = list(names))
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """One target after all macros.

    Attributes:
      rule: Name of the rule.
      label: As in `//:cli`.
      attributes: What the rule is given; labels are whole, as in `//:cli`.
    """

    rule: str
    label: str
    attributes: Mapping[str, Any]

    def labels(self, attribute: str) -> list[str]:
        """Returns the labels of an attribute; none where it is not given."""
        return self.attributes.get(attribute, [])


class Workspace:
    """The targets of a folder with `BUILD` files.

    Attributes:
      root: The folder.
      targets: Label -> target.
      exported: Labels of files that other packages may use.
      problems: What Bazel would refuse while it reads the files.
    """

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.targets: dict[str, Target] = {}
        self.exported: set[str] = set()
        self.problems: list[str] = []
        self._files: dict[str, dict[str, None]] = {}
        self._package = ""
        for self._package in PACKAGES:
            build = root / self._package / "BUILD"
            functions = {
                "exports_files": self._exports_files,
                "filegroup": lambda **given: self._add("filegroup", given),
                "glob": self._glob,
                "package": lambda **given: None,
            }
            try:
                self._run(build, functions)
            except starlark.StarlarkError as error:
                self.problems.append(str(error))

    def file(self, label: str) -> str | None:
        """Returns the path of a label's file, from the root; None without a file."""
        package, _, name = label.removeprefix("//").partition(":")
        return (
            f"{package}/{name}".removeprefix("/") if name in self._in(package) else None
        )

    def files(self, label: str) -> set[str]:
        """Returns the paths of all files that a target brings, its targets too."""
        found: set[str] = set()
        seen, ahead = {label}, [label]
        while ahead:
            label = ahead.pop()
            target = self.targets.get(label)
            if target is None:
                found.add(self.file(label) or "")
                continue
            for name in ("srcs", "data", "deps"):
                new = [part for part in target.labels(name) if part not in seen]
                seen.update(new)
                ahead += new
        return found - {""}

    def python_targets(self) -> list[Target]:
        """Returns all libraries and tests."""
        rules = ("py_library", "py_test")
        return [target for target in self.targets.values() if target.rule in rules]

    def _add(self, rule, given):
        attributes = dict(given)
        label = self._whole(f":{attributes.pop('name')}")
        if label in self.targets:
            self.problems.append(f"{label} is there twice")
        for name in ("srcs", "data", "deps"):
            if name in attributes:
                attributes[name] = [self._whole(value) for value in attributes[name]]
        if "main" in attributes:
            attributes["main"] = self._whole(attributes["main"])
        self.targets[label] = Target(rule, label, attributes)

    def _whole(self, label):
        if label.startswith(("//", "@")):
            return label
        return f"//{self._package}:{label.removeprefix(':')}"

    def _exports_files(self, names):
        self.exported.update(self._whole(name) for name in names)

    def _glob(self, include, exclude=()):
        files = self._in(self._package)
        found = [file for file in files if _matches(file, include)]
        found = [file for file in found if not _matches(file, exclude)]
        if not found:
            self.problems.append(f"glob({include}) matches no file")
        return found

    def _in(self, package):
        """Returns the files of a package, by their path from it, in order."""
        if package not in self._files:
            self._files[package] = dict.fromkeys(_files(self.root / package))
        return self._files[package]

    def _run(self, path, functions):
        module = starlark.Module()
        for name, function in functions.items():
            module.add_callable(name, function)
        is_bzl = path.suffix == ".bzl"
        tree = _parse(str(path.relative_to(self.root)), path.read_text(), is_bzl)
        loader = starlark.FileLoader(self._load)
        starlark.eval(module, tree, starlark.Globals.standard(), loader)
        return module.freeze()

    def _load(self, label):
        rules = {
            "@rules_python//python:py_library.bzl": "py_library",
            "@rules_python//python:py_test.bzl": "py_test",
        }
        if label == "@pip//:requirements.bzl":
            module = starlark.Module()
            module.add_callable("requirement", lambda name: f"@pip//{normal(name)}")
            return module.freeze()
        if label in rules:
            module = starlark.Module()
            rule = rules[label]
            module.add_callable(rule, lambda **given: self._add(rule, given))
            return module.freeze()
        file = self.file(label)
        if file is None:
            raise FileNotFoundError(f"load of {label}, which is not there")
        return self._run(self.root / file, {})


def module_calls(root: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns the calls that `MODULE.bazel` makes: (name, arguments by name)."""
    calls: list[tuple[str, dict[str, Any]]] = []
    module = starlark.Module()

    def note(name):
        module.add_callable(name, lambda **given: calls.append((name, given)))

    for name in ("module", "bazel_dep", "_use_repo", "_defaults", "_toolchain"):
        note(name)
    note("_parse")
    names = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
    for name, text, may_define in (
        ("extensions", _EXTENSIONS, True),
        ("MODULE.bazel", (root / "MODULE.bazel").read_text(), False),
    ):
        starlark.eval(module, _parse(name, text, may_define), names)
    return calls


def locked(root: pathlib.Path) -> dict[str, str]:
    """Returns the requirements of the lock file: normal name -> line."""
    lines = (root / "constraints.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    return {normal(re.split(r"[^\w.-]", line)[0]): line for line in lines}


def normal(name: str) -> str:
    """Returns a requirement's name as the labels of the pip hub have it."""
    return re.sub(r"[-_.]+", "_", name).lower()


def _parse(name, text, may_define):
    """Parses a file in Bazel's dialect, where only `.bzl` files define functions."""
    dialect = starlark.Dialect.standard()
    dialect.enable_def = may_define
    dialect.enable_lambda = may_define
    dialect.enable_load = True
    dialect.enable_keyword_only_arguments = True
    dialect.enable_top_level_stmt = False
    return starlark.parse(name, text, dialect)


def _files(folder):
    """Returns a package's files, without those of packages in it."""
    ignored = {".git"}
    if (folder / ".bazelignore").exists():
        ignored.update((folder / ".bazelignore").read_text().split())
    found = []
    for where, folders, names in os.walk(folder, followlinks=True):
        path = pathlib.Path(where)
        relative = path.relative_to(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not (path / name / "BUILD").exists()
            and (relative / name).as_posix() not in ignored
        )
        found += [(relative / name).as_posix() for name in sorted(names)]
    return found


def _matches(file, patterns):
    return any(_expression(pattern).fullmatch(file) for pattern in patterns)


@functools.cache
def _expression(pattern):
    """Returns a regular expression for a pattern of Bazel's `glob`."""
    *folders, last = pattern.split("/")
    text = "".join(
        "(?:[^/]+/)*" if part == "**" else f"{_segment(part)}/" for part in folders
    )
    return re.compile(text + (".*" if last == "**" else _segment(last)))


def _segment(part):
    return re.escape(part).replace(r"\*", "[^/]*")
