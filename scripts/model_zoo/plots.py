"""Learning curves, and a bar chart with the published figures."""

import pathlib
import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import matplotlib
import results

matplotlib.use("agg")

from matplotlib import pyplot as plt


def write(data: str, folder: pathlib.Path = results.FOLDER) -> None:
    """Writes both plots of a data set."""
    records = results.load(data, folder)
    curves(records, folder / f"{data}_curves.png")
    bars(records, results.published(data, folder), folder / f"{data}_bars.png")


def curves(records: Sequence[results.Record], path: pathlib.Path) -> None:
    """Plots the valid metric over the steps, a line for each run."""
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    colours = plt.get_cmap("tab20")
    metric = ""
    for place, (config, seeds) in enumerate(results.by_config(records).items()):
        for number, record in enumerate(seeds):
            if not record["curve"]:
                continue
            metric = next(name for name in record["curve"][0] if name != "step")
            steps = [point["step"] for point in record["curve"]]
            values = [point[metric] for point in record["curve"]]
            label = None if number else config
            axes.plot(steps, values, color=colours(place % 20), lw=1, label=label)
    axes.set(xlabel="step", ylabel=f"valid {metric}", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    _save(figure, path)


def bars(
    records: Sequence[results.Record], known: Mapping[str, Any], path: pathlib.Path
) -> None:
    """Plots the test metric of each config with the published one."""
    metric = next(iter(records[0]["test"]))
    values = {
        config: [r["test"][metric] for r in seeds]
        for config, seeds in results.by_config(records).items()
    }
    order = sorted(values, key=lambda config: statistics.fmean(values[config]))
    places = range(len(order))
    figure, axes = plt.subplots(figsize=(9, 1 + 0.4 * len(order)), layout="constrained")
    means = [statistics.fmean(values[config]) for config in order]
    axes.barh(places, means, height=0.6, color="tab:blue", alpha=0.6, label="here")
    for place, config in enumerate(order):
        axes.plot(values[config], [place] * len(values[config]), "k|", ms=8)
    figures = known["figures"]
    shown = [place for place in places if order[place] in figures]
    marks = [figures[order[place]] for place in shown]
    if shown:
        axes.plot(marks, shown, "D", color="tab:orange", label="published")
    lowest = min([*means, *marks])
    highest = max([*(max(values[config]) for config in order), *marks])
    margin = 0.1 * (highest - lowest) + 1e-4
    axes.set_xlim(lowest - margin, highest + margin)
    axes.set_yticks(places, order)
    axes.set_xlabel(f"test {metric}; marks are seeds")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def _save(figure: Any, path: pathlib.Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
