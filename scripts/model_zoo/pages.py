"""Writes the results into the pages of the models, docs/models/*.md.

They go between `<!-- result: frappe_lr -->` and `<!-- end -->`.
"""

import pathlib
import re

import results
import trials

FOLDER = trials.ROOT / "docs" / "models"

_BLOCK = re.compile(r"(<!-- result: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(folder: pathlib.Path = FOLDER, known: pathlib.Path = results.FOLDER) -> None:
    """Updates all pages.

    Args:
      folder: The folder of the pages.
      known: The folder of the results.
    """
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        filled = _BLOCK.sub(lambda m: m[1] + _result(m[2], known) + m[3], text)
        if filled != text:
            path.write_text(filled, encoding="utf-8")


def _result(config: str, known: pathlib.Path) -> str:
    """Returns the lines about one config."""
    data = config.partition("_")[0]
    found = results.by_config(results.load(data, known)).get(config)
    if not found:
        return "Not measured yet.\n"
    seeds = ", ".join(str(record["seed"]) for record in found)
    lines = [
        f"- test {name}: {results.spread([r['test'][name] for r in found])}"
        for name in found[0]["test"]
        if name != "loss"
    ]
    figure = results.published(data, known)["figures"].get(config)
    if figure is not None:
        lines[0] += f" (published: {figure:.5f})"
    lines.append(f"- seeds {seeds}; {found[0]['parameters']:,} parameters")
    return "\n".join(lines) + "\n"
