"""Online-style training with sampled negatives, with and without corrected logits.

    python examples/online_training.py

Most rows of a click stream are negatives, and most of these are not worth training on.
Here one in ten of them is kept, as `sample_rate` records, and the model is trained in
time order: each batch is predicted, scored, and then trained on. A model that ignores
the sampling over-predicts several times; one whose loss uses corrected logits, as in
`online_training.yaml`, is calibrated for all rows. The clicks are high incomes of
Census-Income, in the order of the survey's years.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import monolith_tf as mt

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples" / "online_training.yaml"
POSITIVE = "50000+."


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the stream, trains both models and prints their predictions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--source", type=pathlib.Path, default=ROOT / "data/census_income"
    )
    parser.add_argument(
        "--folder", type=pathlib.Path, default=ROOT / "runs/online_training"
    )
    parser.add_argument("--sample-rate", type=float, default=0.1, help="of negatives")
    parser.add_argument(
        "--output", type=pathlib.Path, help="also write the table there"
    )
    options = parser.parse_args(arguments)
    observed = {
        split: write_split(
            options.source / f"{split}.parquet",
            options.folder / f"{split}.parquet",
            rate,
        )
        for split, rate in (("train", options.sample_rate), ("test", 1.0))
    }
    models = [
        train(options.folder, "plain", "model.heads[0].sample_rate=null"),
        train(options.folder, "corrected"),
    ]
    text = table(observed, *models)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


def write_split(source: pathlib.Path, target: pathlib.Path, rate: float) -> float:
    """Writes all positives and a share of the negatives, ordered by year.

    Returns:
      The share of positives among all rows, kept or not.
    """
    rows = pq.read_table(source)
    is_positive = pc.equal(pc.utf8_trim_whitespace(rows["income_50k"]), POSITIVE)
    drawn = np.random.default_rng(0).random(len(rows)) < rate
    rows = rows.append_column("sample_rate", pa.array(np.full(len(rows), rate)))
    order = np.argsort(rows["year"].to_numpy(), kind="stable")
    kept = pc.or_(is_positive, pa.array(drawn)).to_numpy()[order]
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.take(order[kept]), target)
    return pc.mean(is_positive).as_py()


def train(folder: pathlib.Path, name: str, *overrides: str) -> list[dict[str, Any]]:
    """Trains and scores a model; returns the metrics of each window, then of test."""
    model_dir = folder / name
    data = [f"data.{split}={folder / split}.parquet" for split in ("train", "test")]
    job = mt.Estimator(CONFIG, f"model_dir={model_dir}", *data, *overrides)
    job.train()
    job.evaluate("test")
    lines = (model_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = map(json.loads, lines)
    return [line for line in metrics if line["phase"] in ("eval", "test")]


def table(
    observed: Mapping[str, float],
    plain: Sequence[Mapping[str, Any]],
    corrected: Sequence[Mapping[str, Any]],
) -> str:
    """Returns a table in Markdown."""
    rows = [
        "# Online-style training with sampled negatives",
        "",
        "<!-- Made by `python examples/online_training.py --output`. -->",
        "",
        "| rows | AUC | AUC, corrected | predicted / observed | the same, corrected |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one, other in zip(plain, corrected, strict=True):
        is_test = one["phase"] == "test"
        cells = ["test, all rows" if is_test else f"kept, to step {one['step']}"]
        cells += [f"{line['income/auc']:.4f}" for line in (one, other)]
        cells += [f"{line['income/calibration']:.3f}" for line in (one, other)]
        rows.append(f"| {' | '.join(cells)} |")
    before, after = (
        lines[-1]["income/calibration"] * observed["test"]
        for lines in (plain, corrected)
    )
    rows += [
        "",
        f"Test, all rows: observed rate {observed['test']:.4f}, predicted "
        f"{before:.4f} without correction and {after:.4f} with it.",
    ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
