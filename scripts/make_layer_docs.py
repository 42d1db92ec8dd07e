"""Writes `docs/layers.md` from docstrings: `python scripts/make_layer_docs.py`."""

import inspect
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "layers.md"
sys.path.insert(0, str(ROOT))

HEADER = """\
# Layers

<!-- Made from the docstrings by `python scripts/make_layer_docs.py`. -->

`monolith_tf.layers` has the layers below and, under their own names, all others of
`tf_keras.layers`. `help(monolith_tf.layers.AllInt)` shows the arguments and errors of
`AllInt`. In the formulas `@` is the matrix product, `*` is elementwise, and `[a | b]`
concatenates two tensors on the last axis.

| Layer | Formula | Shapes | Paper |
| --- | --- | --- | --- |
"""

FUNCTIONS = """
Functions:

| Function | Formula | Paper |
| --- | --- | --- |
"""

# A docstring's section: its heading, and its text up to an empty line or a heading.
_SECTION = re.compile(
    r"^([A-Z][a-z ]+):(.*(?:\n(?![A-Z][a-z ]+:|\n).*)*)", re.MULTILINE
)


def main() -> None:
    """Writes the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text(), encoding="utf-8")


def text() -> str:
    """Returns the content of the page."""
    from monolith_tf import layers

    names = {name: [name] for name in layers.LAYERS}
    functions = {}
    for name in sorted(layers.NAMES.keys() - names):
        found = getattr(layers, name)
        if inspect.isfunction(found):
            functions[name] = found
        elif inspect.isclass(found) and found.__name__ in names:
            names[found.__name__].append(name)  # another name of a layer
    functions |= {
        f"ncf.{name}": found
        for name, found in vars(layers.ncf).items()
        if inspect.isfunction(found) and not name.startswith("_")
    }
    return "".join(
        [HEADER]
        + [layer_row(getattr(layers, name), names[name]) for name in names]
        + [FUNCTIONS]
        + [function_row(name, functions[name]) for name in sorted(functions)]
    )


def layer_row(cls: type, names: list[str]) -> str:
    """Returns a layer's line; missing sections come from its base class."""
    found: dict[str, str] = {}
    for base in inspect.getmro(cls):
        if base.__module__.startswith("monolith_tf"):
            found = sections(base) | found
    return row(
        title(cls, names), formula(cls), shapes(found), one_line(found.get("Source"))
    )


def function_row(name: str, function) -> str:
    """Returns a function's line; a missing source comes from its module."""
    found = sections(inspect.getmodule(function)) | sections(function)
    return row(
        title(function, [name]), formula(function), one_line(found.get("Source"))
    )


def row(*cells: str) -> str:
    """Returns a line of a table."""
    return "| " + " | ".join(cell.replace("|", r"\|") or "-" for cell in cells) + " |\n"


def sections(documented) -> dict[str, str]:
    """Returns a docstring's sections, heading -> text."""
    return dict(_SECTION.findall(inspect.cleandoc(documented.__doc__ or "")))


def title(documented, names: list[str]) -> str:
    """Returns the names and the docstring's first line."""
    summary = inspect.getdoc(documented).partition("\n")[0]
    return ", ".join(f"**{name}**" for name in names) + f"<br>{summary}"


def formula(documented) -> str:
    """Returns the first indented block before the sections, else the quoted text."""
    head = re.split(r"\n[A-Z][a-z ]+:", inspect.getdoc(documented))[0]
    block = re.search(r"(?:^    .*\n?)+", head, re.MULTILINE)
    if block is None:
        return ", ".join(re.findall(r"`[^`]* = [^`]*`", head))
    lines = textwrap.dedent(block[0]).replace("`", "").rstrip().splitlines()
    # Comments have their own column in the docstring; here they follow the code.
    lines = [re.sub(r"(?<=\S) +#", "  #", line) for line in lines]
    return "<br>".join(f"`{line}`" for line in lines)


def shapes(found: dict[str, str]) -> str:
    """Returns the shapes of input and output."""
    if "Input and output shape" in found:
        return "in and out: " + one_line(found["Input and output shape"])
    if "Input shape" in found:
        taken = one_line(found["Input shape"])
    else:
        arguments = textwrap.dedent(found["Call arguments"]).strip("\n")
        taken = " ".join(
            f"`{name}`: {one_line(meaning)}"
            for name, meaning in re.findall(r"^(\w+):(.*(?:\n .*)*)", arguments, re.M)
        )
    given = found.get("Output shape") or found["Returns from a call"]
    return f"in: {taken}<br>out: {one_line(given)}"


def one_line(words: str | None) -> str:
    """Returns words with single spaces between them; nothing for None."""
    return " ".join((words or "").split())


if __name__ == "__main__":
    main()
