"""Searches for embedding widths on Frappe, and trains models of these widths.

    python examples/embedding_search.py

trains `configs/frappe_nas_full.yaml`, and starting from it
`configs/frappe_nas_mixed.yaml` and `configs/frappe_nas_simple.yaml`, the latter also
with `SimpleNasV2Layer`, with several size penalties. A search's last checkpoint has the
sizes that it found. They are written to a config of plain tables, and that model is
trained from scratch. For comparison, other models have one width for all fields.
"""

import argparse
import collections
import pathlib
import statistics
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import monolith_tf as mt
from monolith_tf import config as config_lib
from monolith_tf.experiment import found_sizes
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = {
    "MixedNASLayer": "frappe_nas_mixed",
    "SimpleNasLayer": "frappe_nas_simple",
    "SimpleNasV2Layer": "frappe_nas_simple",
}
FULL = "frappe_nas_full"
WIDEST = 16
ONE_WIDTH = "one width"


class Result(NamedTuple):
    """A model of plain tables, and the search that found its sizes.

    Attributes:
      search: The layer that searched, or `ONE_WIDTH`.
      setting: The penalty, or the width.
      seed: The seed.
      sizes: Field -> width.
      parameters: Values in the rows of the tables.
      auc: On the test split; None if the search kept nothing, so there is no model.
      search_auc: The same for the searching model at its end.
    """

    search: str
    setting: float
    seed: int
    sizes: Mapping[str, int]
    parameters: int
    auc: float | None
    search_auc: float | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Searches, trains models of the sizes found, and prints their AUC."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/frappe")
    parser.add_argument(
        "--folder", type=pathlib.Path, default=ROOT / "runs/embedding_search"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--layers", nargs="*", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument(
        "--penalties", type=float, nargs="+", default=[3e-5, 1e-4, 3e-4]
    )
    parser.add_argument("--widths", type=int, nargs="*", default=[4, 1])
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an override"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="also write the table there, and a plot"
    )
    options = parser.parse_args(arguments)
    files = {"train": "train", "eval": "valid", "test": "test"}
    data = [f"data.{key}={options.data}/{name}.parquet" for key, name in files.items()]
    results = []
    for seed in options.seeds:
        settings = [f"seed={seed}", *data, *options.set]
        for width in (WIDEST, *options.widths):
            results.append(one_width(options.folder, width, seed, settings))
        for layer in options.layers:
            for penalty in options.penalties:
                results.append(search(options.folder, layer, penalty, seed, settings))
    text = table(results)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
        plot(results, options.output.with_suffix(".png"))


def one_width(
    folder: pathlib.Path, width: int, seed: int, settings: Sequence[str]
) -> Result:
    """Trains a model whose fields all have one width."""
    job = mt.Estimator(
        ROOT / "configs" / f"{FULL}.yaml",
        f"model_dir={folder / f'width_{width}_{seed}'}",
        f"default_table.dim={width}",
        *settings,
    )
    sizes = {feature.name: width for feature in job.config.features}
    return Result(ONE_WIDTH, width, seed, sizes, *trained(job))


def search(
    folder: pathlib.Path,
    layer: str,
    penalty: float,
    seed: int,
    settings: Sequence[str],
) -> Result:
    """Searches, and trains a model of the sizes found."""
    model_dir = folder / f"{layer}_{penalty:g}_{seed}"
    job = mt.Estimator(
        ROOT / "configs" / f"{CONFIGS[layer]}.yaml",
        f"model_dir={model_dir}",
        f"model.blocks[0].layer={layer}",
        f"model.blocks[0].args.size_penalty={penalty}",
        f"trainer.warm_start=[{folder / f'width_{WIDEST}_{seed}'}]",
        *settings,
    )
    job.train()
    checkpoint = newest(job)
    # The last state, since the best one may have other sizes.
    search_auc = job.evaluate("test", str(checkpoint.path))["label/auc"]
    found = checkpoint.manifest["state"]["search"]
    sizes = {name: size["kept"] for name, size in found["search"].items()}
    if not any(sizes.values()):
        return Result(layer, penalty, seed, sizes, 0, None, search_auc)
    config = found_sizes.with_found_sizes(job.config, found)
    path = folder / f"{model_dir.name}.yaml"
    path.write_text(config_lib.dump_config(config), encoding="utf-8")
    parameters, auc = trained(mt.Estimator(path))
    return Result(layer, penalty, seed, sizes, parameters, auc, search_auc)


def trained(job: mt.Estimator) -> tuple[int, float]:
    """Trains, or resumes; returns the parameters of the tables, and the test AUC."""
    job.train()
    parameters = num_parameters(newest(job))
    return parameters, job.evaluate("test")["label/auc"]


def newest(job: mt.Estimator) -> checkpoint_lib.Checkpoint:
    """Returns a job's last checkpoint."""
    path = pathlib.Path(job.config.model_dir) / "checkpoints"
    found = checkpoint_dir.CheckpointDir(path).latest()
    if found is None:
        raise ValueError(f"{path} has no complete checkpoint.")
    return found


def num_parameters(checkpoint: checkpoint_lib.Checkpoint) -> int:
    """Counts the values in the rows of a checkpoint's tables."""
    embedding = checkpoint.manifest["embedding"]
    dims = {
        group["name"]: sum(part["dim"] for part in group["slices"])
        for group in embedding["groups"]
    }
    return sum(
        table["counters"]["rows"] * dims[table["group"]]
        for table in embedding["tables"]
    )


def table(results: Sequence[Result]) -> str:
    """Returns a page in Markdown."""
    fields = list(results[0].sizes)
    lines = [
        "# Searched widths of embeddings on Frappe",
        "",
        "<!-- Made by `python examples/embedding_search.py --output`. -->",
        "",
        "| search | penalty or width | columns | parameters of tables "
        "| test AUC, trained from new | test AUC, search |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (name, setting), group in by_setting(results).items():
        cells = [
            f"{statistics.fmean(sum(r.sizes.values()) for r in group):.4g}",
            f"{statistics.fmean(r.parameters for r in group):,.0f}",
            spread(r.auc for r in group),
            spread(r.search_auc for r in group),
        ]
        lines.append(f"| {name} | {setting:g} | {' | '.join(cells)} |")
    lines += [
        "",
        "The widths that were found:",
        "",
        f"| search | penalty | seed | {' | '.join(fields)} |",
        f"|{' --- |' * (3 + len(fields))}",
    ]
    for result in results:
        if result.search != ONE_WIDTH:
            cells = [result.search, f"{result.setting:g}", result.seed]
            cells += result.sizes.values()
            lines.append(f"| {' | '.join(map(str, cells))} |")
    seeds = sorted({result.seed for result in results})
    lines += ["", f"Seeds: {', '.join(map(str, seeds))}.", ""]
    return "\n".join(lines)


def by_setting(
    results: Sequence[Result],
) -> Mapping[tuple[str, float], Sequence[Result]]:
    """Returns the results of each search and penalty, one for each seed."""
    groups = collections.defaultdict(list)
    for result in results:
        groups[result.search, result.setting].append(result)
    return groups


def spread(values: Iterable[float | None]) -> str:
    """Returns mean and deviation of the present values; a single value alone."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    text = f"{statistics.fmean(values):.5f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.5f}"


def plot(results: Sequence[Result], path: pathlib.Path) -> None:
    """Plots the AUC over the parameters of the tables, a colour for each search."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name in dict.fromkeys(result.search for result in results):
        points = sorted(
            (r.parameters, r.auc)
            for r in results
            if r.search == name and r.auc is not None
        )
        style = "k--o" if name == ONE_WIDTH else "o"
        axes.plot(*zip(*points, strict=True), style, label=name)
    axes.set(xscale="log", xlabel="parameters of the tables", ylabel="test AUC")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
