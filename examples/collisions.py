"""The cost of id collisions: DeepFM on MovieLens-1M, with a row per id and without.

    python examples/collisions.py

trains `configs/movielens_deepfm.yaml` with several seeds, each with the original ids
and with ids hashed into so few values that some share a row: `user_folded` and
`movie_folded` of `scripts/prepare/movielens_1m.py`. It prints the AUC on the test split
for each, and the loss per seed.

Source: Liu et al., "Monolith: Real Time Recommendation System With Collisionless
Embedding Table", ORSUM 2022 (arXiv:2209.07663), section 3.
"""

import argparse
import json
import pathlib
import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

import monolith_tf as mt

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "movielens_deepfm.yaml"
IDS = ("user", "movie")
MODELS = {
    "a row per id": (),
    "colliding ids": tuple(
        f"features[{number}].column={name}_folded" for number, name in enumerate(IDS)
    ),
}

Results = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
"""Model -> seed -> evaluations of the valid split, then one of the test split."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains all models, and prints the cost of collisions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/ml1m/by_time")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "runs/collisions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an override"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="also write the table there, and a plot"
    )
    options = parser.parse_args(arguments)
    files = {"train": "train", "eval": "valid", "test": "test"}
    data = [f"data.{key}={options.data}/{name}.parquet" for key, name in files.items()]
    results: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in MODELS}
    for seed in options.seeds:
        for name, overrides in MODELS.items():
            folder = options.folder / f"{name.replace(' ', '_')}_{seed}"
            settings = [f"model_dir={folder}", f"seed={seed}", *data]
            results[name][seed] = train([*settings, *overrides, *options.set])
    text = table(results, [counts(options.data, name) for name in IDS])
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
        plot(results, options.output.with_suffix(".png"))


def train(settings: Sequence[str]) -> list[dict[str, Any]]:
    """Trains, or resumes; returns all evaluations, that of the test split last."""
    job = mt.Estimator(CONFIG, *settings)
    job.train()
    job.evaluate("test")
    path = pathlib.Path(job.config.model_dir) / "metrics.jsonl"
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    found = [line for line in lines if line["phase"] in ("eval", "test")]
    return [line for line in found if line["phase"] == "eval"] + found[-1:]


def counts(data: pathlib.Path, name: str) -> tuple[str, int, int]:
    """Returns a kind of id, and its numbers of ids before and after hashing."""
    paths = [data / f"{split}.parquet" for split in ("train", "valid", "test")]
    rows = pq.read_table(paths, columns=[name, f"{name}_folded"])
    ids, folded = (len(rows[column].unique()) for column in rows.column_names)
    return name, ids, folded


def table(results: Results, ids: Sequence[tuple[str, int, int]]) -> str:
    """Returns a page in Markdown."""
    lines = [
        "# What collisions cost",
        "",
        "<!-- Made by `python examples/collisions.py --output`. -->",
        "",
        "| ids | rows without collisions | rows with them | fewer |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {before:,} | {after:,} | {1 - after / before:.2%} |"
            for name, before, after in ids
        ),
        "",
        f"| seed | {' | '.join(f'test AUC, {name}' for name in results)} | lost |",
        "| --- | --- | --- | --- |",
    ]
    columns = [
        [of_seed[-1]["liked/auc"] for of_seed in r.values()] for r in results.values()
    ]
    columns.append([one - other for one, other in zip(*columns, strict=True)])
    for seed, *values in zip(next(iter(results.values())), *columns, strict=True):
        lines.append(f"| {seed} | {' | '.join(f'{value:.5f}' for value in values)} |")
    cells = [f"{statistics.fmean(c):.5f} ± {statistics.stdev(c):.5f}" for c in columns]
    lines += [f"| mean and deviation | {' | '.join(cells)} |", ""]
    return "\n".join(lines)


def plot(results: Results, path: pathlib.Path) -> None:
    """Plots the AUC on the valid split over the steps, a line for each training."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, (name, seeds) in enumerate(results.items()):
        for first, lines in enumerate(seeds.values()):
            axes.plot(
                [line["step"] for line in lines[:-1]],
                [line["liked/auc"] for line in lines[:-1]],
                color=f"C{number}",
                label=None if first else name,
            )
    axes.set(xlabel="step", ylabel="valid AUC")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
