"""Tables: drawn on a terminal, plain aligned text elsewhere."""

import sys
from collections.abc import Sequence
from typing import TextIO

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def show(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    stream: TextIO | None = None,
) -> None:
    """Prints a table; columns of numbers are right-aligned.

    Args:
      title: Printed above it.
      headers: Names of the columns.
      rows: Cells, one per header in each row.
      stream: Where to print; standard output by default.
    """
    stream = stream or sys.stdout
    cells = [[cell(value) for value in row] for row in rows]
    right = [
        bool(cells) and all(_is_number(row[index]) for row in cells)
        for index in range(len(headers))
    ]
    if stream.isatty():
        _draw(title, headers, cells, right, stream)
    else:
        stream.write(plain(title, headers, cells, right))
    stream.flush()


def plain(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
) -> str:
    """Returns a table as text, columns two spaces apart."""
    widths = [
        max(len(line[index]) for line in [headers, *rows])
        for index in range(len(headers))
    ]

    def line(values: Sequence[str]) -> str:
        padded = [
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(values, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([title, line(headers), rule, *map(line, rows), "", ""])


def cell(value: object) -> str:
    """Returns the text of a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5f}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def size(num_bytes: float) -> str:
    """Returns a number of bytes in a suitable unit, such as `1.5 MiB`."""
    unit = 0
    while num_bytes >= 1024 and unit < len(_UNITS) - 1:
        num_bytes /= 1024
        unit += 1
    digits = 0 if unit == 0 else 1
    return f"{num_bytes:,.{digits}f} {_UNITS[unit]}"


def _draw(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    stream: TextIO,
) -> None:
    from rich import box
    from rich import console
    from rich import table as rich_table
    from rich import text

    drawn = rich_table.Table(
        title=text.Text(title), title_justify="left", box=box.SIMPLE_HEAD
    )
    for header, to_right in zip(headers, right, strict=True):
        drawn.add_column(text.Text(header), justify="right" if to_right else "left")
    for row in rows:
        drawn.add_row(*map(text.Text, row))
    console.Console(file=stream).print(drawn)


def _is_number(value: str) -> bool:
    head = value.split(" ")[0].replace(",", "").removesuffix("%")
    if value == "-":
        return True
    try:
        float(head)
    except ValueError:
        return False
    return value.count(" ") == 0 or value.split(" ")[1] in _UNITS
