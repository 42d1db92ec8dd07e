"""The zoo's results: records of runs in JSON, and the tables of them."""

import collections
import json
import pathlib
import statistics
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import trials
import yaml

FOLDER = trials.ROOT / "docs" / "results"

Record = Mapping[str, Any]


def load(data: str, folder: pathlib.Path = FOLDER) -> list[dict[str, Any]]:
    """Returns the records of a data set; none if there is no file yet."""
    path = folder / f"{data}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def add(record: Record, data: str, folder: pathlib.Path = FOLDER) -> None:
    """Adds a record, replacing one of the same config and seed."""
    key = (record["config"], record["seed"])
    kept = [r for r in load(data, folder) if (r["config"], r["seed"]) != key]
    kept = sorted([*kept, record], key=lambda r: (r["config"], r["seed"]))
    folder.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(r, sort_keys=True) for r in kept)
    (folder / f"{data}.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


def published(data: str, folder: pathlib.Path = FOLDER) -> dict[str, Any]:
    """Returns the published figures of a data set: `source`, `metric`, `figures`."""
    path = folder / "published.yaml"
    known = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known.get(data, {"source": "", "metric": None, "figures": {}})


def by_config(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Returns config -> its records, in order of seed."""
    found: dict[str, list[Record]] = collections.defaultdict(list)
    for record in records:
        found[record["config"]].append(record)
    return dict(found)


def spread(values: Sequence[float], digits: int = 5) -> str:
    """Returns the mean and, for several values, the standard deviation."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.{digits}f}"


def table(data: str, records: Sequence[Record], known: Mapping[str, Any]) -> str:
    """Returns the page of a data set, in Markdown."""
    first = records[0]
    metrics = [name for name in first["test"] if name != "loss"]
    figures = known["figures"]
    rows = []
    for config, seeds in by_config(records).items():
        row = [
            f"`{config}`",
            ", ".join(str(r["seed"]) for r in seeds),
            *(spread([r["test"][name] for r in seeds]) for name in metrics),
            " ".join(f"{r['test'][metrics[0]]:.5f}" for r in seeds),
            "" if config not in figures else f"{figures[config]:.5f}",
            f"{statistics.fmean(r['examples_per_sec'] for r in seeds):,.0f}",
            f"{seeds[0]['parameters']:,}",
            ", ".join(str(r["best_step"]) for r in seeds),
        ]
        rows.append((statistics.fmean(r["test"][metrics[0]] for r in seeds), row))
    header = ["config", "seeds", *metrics, f"each {metrics[0]}", "published"]
    header += ["examples/s", "parameters", "scored step"]
    ordered = [row for _, row in sorted(rows, reverse=True)]
    lines = [
        f"# Results on {data}",
        "",
        f"<!-- Made by `scripts/zoo` from {data}.json. -->",
        "",
        "The test split, scored once by the checkpoint that was best on the valid",
        "split, or by the last one where the config has no `keep_best`: mean and",
        "standard deviation over the seeds. The rate is that of training alone.",
        "",
        *_markdown([header, *ordered]),
        "",
    ]
    if known["source"]:
        lines += [f"Published: {known['metric']}, {known['source']}", ""]
    lines += [f"![Test figures]({data}_bars.png)", ""]
    lines += [f"![Learning curves]({data}_curves.png)", ""]
    lines += ["## Commands", "", "```"]
    lines += [r["command"] for r in records]
    lines += ["```", "", "## Where", ""]
    lines += [f"- {place}" for place in _places(records)]
    return "\n".join(lines) + "\n"


def write(data: str, folder: pathlib.Path = FOLDER) -> None:
    """Writes the page of a data set again."""
    text = table(data, load(data, folder), published(data, folder))
    (folder / f"{data}.md").write_text(text, encoding="utf-8")


def _places(records: Iterable[Record]) -> list[str]:
    """Returns each machine with its versions, once."""
    return sorted(
        {
            ", ".join([r["machine"], *(f"{k} {v}" for k, v in r["versions"].items())])
            for r in records
        }
    )


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    header, *body = rows
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
    return lines
