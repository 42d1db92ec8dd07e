"""How benchmarks report: the machine, tables, and their part of a page in `docs`."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import sys
from collections.abc import Iterable
from collections.abc import Sequence

from sides.process import ROOT

_TABLES: list[dict[str, list]] = []
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def machine(*packages: str) -> str:
    """Returns a line on the machine, Python and TensorFlow and further packages."""
    cpu = platform.processor() or platform.machine()
    if _CPU_INFO.exists():
        cpu = dict(re.findall(r"(.*?)\t*: (.*)", _CPU_INFO.read_text())).get(
            "model name", cpu
        )
    versions = [
        f"{package} {importlib.metadata.version(package)}"
        for package in ("tensorflow", *packages)
    ]
    return (
        f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{', '.join(versions)}; load {os.getloadavg()[0]:.1f}"
    )


def command() -> str:
    """Returns the command that started this benchmark."""
    return shlex.join(["scripts/bench", pathlib.Path(sys.argv[0]).stem, *sys.argv[1:]])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; all columns but the first are numbers.

    `write_json` writes it too.
    """
    rows = [list(row) for row in rows]
    _TABLES.append({"head": list(head), "rows": rows})
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--json FILE`."""
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="also write all tables there"
    )


def write_json(path: pathlib.Path | None) -> None:
    """Writes the tables so far to a file, with the command and the machine."""
    if path is not None:
        found = {"command": command(), "machine": machine(), "tables": _TABLES}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def give(page: str | None, part: str, text: str) -> None:
    """Prints a part of a page, and also writes it if `page` is given."""
    print(f"\n{part}\n\n{text}", flush=True)
    if page is not None:
        write(page, part, text)


def write(page: str, part: str, text: str) -> None:
    """Writes text to `docs/<page>`, replacing the earlier text of this part.

    The rest of the page, written by hand, stays; a new part is appended.
    """
    path = ROOT / "docs" / page
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    begin, end = f"<!-- {part}: written by `{command()}` -->", f"<!-- /{part} -->"
    new = f"{begin}\n\n{text.strip()}\n\n{end}"
    held = rf"<!-- {re.escape(part)}: .*?{re.escape(end)}"
    if re.search(held, old, re.DOTALL):
        new = re.sub(held, lambda _: new, old, flags=re.DOTALL)
    else:
        new = f"{old.rstrip()}\n\n{new}\n".lstrip()
    path.write_text(new, encoding="utf-8")
