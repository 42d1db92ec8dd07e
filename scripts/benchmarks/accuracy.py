"""Accuracy of other libraries' models on the rows of our configs.

    scripts/bench accuracy NAME ... [--seeds 1 2 3] [--epochs N] [--write]

A peer trains on the batches of a config's job: the same rows, with the same items drawn
for them, in the same order, and the same rows held out. After every epoch it scores
those and the test split. The result is that of the last epoch, or for Census-Income of
the epoch with the best held-out rows, as in our configs.

All train with a constant rate of 0.001, and DIN for six epochs with the decay of
FuxiCTR's config for Amazon Electronics; names that end in `_config` have the rates,
decay and epochs of our config instead. Each process has one thread; the libraries are
installed below the running environment (1 GB). `--write` adds each run to
`docs/results/peers.json`, in place of an earlier one of that seed, and writes the
tables of all runs there into `docs/results/peers.md`.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from accuracy_sides import case as case_lib
from sides import process
from sides import report

from monolith_tf import config as config_lib
from monolith_tf import metrics
from monolith_tf import schedules
from monolith_tf.experiment import build

RECORDS = process.ROOT / "docs" / "results" / "peers.json"
# FuxiCTR needs polars below 2, but does not declare it.
_PACKAGES = "fuxictr==2.3.10 torch==2.13.0 polars==1.44.2"
_FUXICTR = process.Library("FuxiCTR", _PACKAGES, alone=True)
_TORCH = process.Library("torch", _PACKAGES, alone=True)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A network of another library, and how it trains.

    Attributes:
      title: How the table calls it.
      library: The library it runs on.
      side: Its module below `accuracy_sides`.
      config: The config, in `configs`, whose rows it trains on.
      rate: Adam's constant learning rate; None takes the config's schedule.
      l2: Decay of embeddings; None takes that of the config's tables.
      epochs: Epochs; None takes the config's.
    """

    title: str
    library: process.Library
    side: str
    config: str
    rate: float | None = None
    l2: float | None = None
    epochs: int | None = None


def _din(config: str, **settings: Any) -> Peer:
    return Peer("FuxiCTR's DIN", _FUXICTR, "fuxictr_din", config, **settings)


def _census(title: str, config: str) -> Peer:
    return Peer(title, _TORCH, "torch_census", config, rate=1e-3)


PEERS = {
    "din_drawn_once": _din("amazon_din_drawn_once", rate=1e-3, l2=0.005, epochs=6),
    "din_drawn_once_config": _din("amazon_din_drawn_once"),
    "din_drawn_each_epoch": _din("amazon_din", rate=1e-3, l2=0.005, epochs=6),
    "din_drawn_each_epoch_config": _din("amazon_din"),
    "census_mmoe": _census("plain PyTorch, MMoE", "census_mmoe"),
    "census_shared_bottom": _census(
        "plain PyTorch, shared bottom", "census_shared_bottom"
    ),
}


class Encoder:
    """Numbers a job's ids from 1, and scales its numbers, by the first epoch's rows.

    Args:
      job: The job.
    """

    def __init__(self, job: build.Job) -> None:
        self._config = job.config
        is_read = {job.config.group_by}.isdisjoint  # The model does not read it.
        features = [f for f in job.config.features if is_read([f.name])]
        self._ids = {
            f.source_column: f.table or f.name for f in features if f.kind != "dense"
        }
        self._dense = [f.source_column for f in features if f.kind == "dense"]
        columns = _columns(job.source("train").dataset(shuffle=False))
        values: dict[str, list] = {}
        for column, table in self._ids.items():
            values.setdefault(table, []).append(np.unique(columns[column]))
        self._known = {
            table: np.unique(np.concatenate(found)) for table, found in values.items()
        }
        logs = {name: np.log1p(columns[name]) for name in self._dense}
        self._scales = {name: (x.mean(), x.std()) for name, x in logs.items()}

    @property
    def tables(self) -> dict[str, str]:
        """Column -> table."""
        return self._ids

    @property
    def sizes(self) -> dict[str, int]:
        """Table -> rows, with row 0 for ids that are not in the first epoch."""
        return {table: 1 + len(known) for table, known in self._known.items()}

    @property
    def dense(self) -> list[str]:
        """The columns of numbers."""
        return self._dense

    def save(self, path: pathlib.Path, dataset: tf.data.Dataset) -> dict[str, Any]:
        """Writes a dataset's rows for a side; returns the labels and user columns."""
        columns = _columns(dataset)
        found = {name: x for name, x in columns.items() if name.endswith("/lengths")}
        for column, table in self._ids.items():
            known, values = self._known[table], columns[column]
            place = np.minimum(np.searchsorted(known, values), len(known) - 1)
            found[column] = np.where(known[place] == values, place + 1, 0)
        for name, (mean, deviation) in self._scales.items():
            scaled = (np.log1p(columns[name]) - mean) / deviation
            found[name] = scaled.astype(np.float32)
        labels = {}
        for label in self._config.labels:
            values = columns[label.column or label.name]
            if label.equals:
                equals = [str(value).encode() for value in label.equals]
                values = np.isin(np.char.strip(values.astype("S")), equals)
            labels[label.name] = values.astype(np.float32)
        np.savez(path, **found, **labels)
        group = self._config.group_by
        return {"labels": labels, "keys": columns[group] if group else None}


def _columns(dataset: tf.data.Dataset) -> dict[str, np.ndarray]:
    """Returns all rows; lists as their values, and their lengths apart."""
    parts: dict[str, list] = {}
    for batch in dataset:
        for name, column in batch.items():
            if isinstance(column, tf.RaggedTensor):
                lengths = column.row_lengths().numpy()
                parts.setdefault(f"{name}/lengths", []).append(lengths)
                column = column.flat_values
            parts.setdefault(name, []).append(column.numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}


def make_case(peer: Peer, config: Any, encoder: Encoder) -> case_lib.Case:
    """Returns the case of a peer on a config."""
    table = config.default_table
    return case_lib.Case(
        seed=config.seed,
        sizes=encoder.sizes,
        tables=encoder.tables,
        dense=encoder.dense,
        labels=[label.name for label in config.labels],
        batch=config.data.batch_size,
        dim=table.dim,
        layers=_LAYERS[peer.side](config.model),
        l2=table.l2 if peer.l2 is None else peer.l2,
        epsilon=1e-8,
        clip_norm=config.trainer.clip_norm or 0.0,
    )


def _din_layers(model: Any) -> dict[str, Any]:
    blocks = {block.name: block for block in model.blocks}
    return {
        "item": blocks["target"].inputs,
        "history": blocks["history"].inputs,
        "attention_units": blocks["interest"].args["hidden_units"][:-1],
        "units": blocks["tower"].args["output_dims"][:-1],
        "dropout": blocks["tower"].args["dropout"],
        "softmax": True,
    }


def _census_layers(model: Any) -> dict[str, int]:
    if model.name == "mmoe":
        (units,), (tower,) = model.params["expert_units"], model.params["tower_units"]
        experts = model.params["num_experts"]
    else:
        bottom, first, _ = (block.args["units"] for block in model.blocks)
        experts, units, tower = 0, bottom, first
    return {"experts": experts, "units": units, "tower_units": tower}


_LAYERS = {"fuxictr_din": _din_layers, "torch_census": _census_layers}


def train(peer: Peer, seed: int, epochs: int | None, folder: pathlib.Path) -> dict:
    """Trains a peer with one seed.

    Args:
      peer: The peer.
      seed: The seed.
      epochs: Epochs, in place of those of the peer.
      folder: Folder for the rows.

    Returns:
      `test`, the metrics of the test split, `epoch`, after which they were computed,
      `curve`, both splits' metrics after each epoch, `l2`, and what the side reports.
    """
    path = process.ROOT / "configs" / f"{peer.config}.yaml"
    overrides = [f"seed={seed}", f"model_dir={folder}/model"]
    config = config_lib.load_config(path, overrides)
    job = build.Job(config)
    source = job.source("train")
    encoder = Encoder(job)
    case = make_case(peer, config, encoder)
    truth = {
        split: encoder.save(folder / f"{split}.npz", job.source(split).dataset())
        for split in ("eval", "test")
    }
    spec = config.trainer.optimizer.learning_rate if peer.rate is None else peer.rate
    best = config.trainer.keep_best
    epochs = epochs or peer.epochs or config.trainer.epochs
    steps = source.batches_per_epoch()
    curve: list[dict[str, Any]] = []
    fields = json.dumps(dataclasses.asdict(case))
    with process.Process(peer.library, f"accuracy_sides.{peer.side}", fields) as side:
        for epoch in range(epochs):
            encoder.save(folder / "train.npz", source.dataset(epoch))
            rates = [
                float(schedules.rate_at(spec, step))
                for step in range(epoch * steps, (epoch + 1) * steps)
            ]
            side.ask("epoch", take=str(folder / "train.npz"), rates=rates)
            now = {s: _score(side, config, folder, s, truth[s]) for s in truth}
            curve.append({"epoch": epoch + 1, **now})
            print(f"seed {seed}: {curve[-1]}", flush=True)
        found = {"parameters": side.ask("parameters"), "versions": side.ask("versions")}
    chosen = max(curve, key=lambda one: one["eval"][best]) if best else curve[-1]
    found |= {"epoch": chosen["epoch"], "test": chosen["test"], "curve": curve}
    return found | {"l2": case.l2}


def _score(
    side: process.Process,
    config: Any,
    folder: pathlib.Path,
    split: str,
    truth: Mapping[str, Any],
) -> dict[str, float]:
    """Returns `<label>/<metric>` -> its value on a split."""
    given = folder / "found.npy"
    side.ask("predict", take=str(folder / f"{split}.npz"), give=str(given))
    scores = {}
    for (label, labels), found in zip(
        truth["labels"].items(), np.load(given), strict=True
    ):
        for name in config.metrics:
            metric = metrics.create(name)
            metric.update(found, labels, keys=truth["keys"])
            scores[f"{label}/{name}"] = float(metric.result())
    return scores


def add(record: dict) -> list[dict]:
    """Adds a record to the file, and returns those of its name."""
    key = (record["name"], record["seed"])
    old = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else []
    kept = [one for one in old if (one["name"], one["seed"]) != key]
    kept = sorted([*kept, record], key=lambda one: (one["name"], one["seed"]))
    text = ",\n".join(json.dumps(one, sort_keys=True) for one in kept)
    RECORDS.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    return [one for one in kept if one["name"] == record["name"]]


def table(records: Sequence[dict]) -> str:
    """Returns the table of a peer's seeds, and their mean."""
    first = records[0]
    peer, names = PEERS[first["name"]], sorted(first["test"])
    rows = []
    for one in records:
        values = [f"{one['test'][name]:.5f}" for name in names]
        rows.append([str(one["seed"]), *values, str(one["epoch"])])
    if len(records) > 1:
        of_seeds = [[one["test"][name] for one in records] for name in names]
        spread = [
            f"{statistics.fmean(found):.5f} ± {statistics.stdev(found):.5f}"
            for found in of_seeds
        ]
        rows.append(["mean and deviation", *spread, ""])
    rate = "the config's rates" if peer.rate is None else f"a rate of {peer.rate}"
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items())
    return (
        f"{peer.title} on the rows of `configs/{peer.config}.yaml`: "
        f"{len(first['curve'])} epochs, {rate}, decay {first['l2']} of embeddings, "
        f"{first['parameters']:,} parameters; {versions}.\n\n"
        f"{report.table(['seed', *names, 'after epoch'], rows)}"
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=PEERS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, help="in place of the peer's")
    parser.add_argument("--write", action="store_true")
    report.add_json(parser)
    arguments = parser.parse_args()
    for name in arguments.names:
        records = []
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as path:
                made = train(PEERS[name], seed, arguments.epochs, pathlib.Path(path))
            command = f"scripts/bench accuracy {name} --seeds {seed} --write"
            made |= {"name": name, "seed": seed, "command": command}
            made["machine"] = report.machine()
            records.append(made)
            if arguments.write:
                known = add(made)
                report.write("results/peers.md", name, table(known))
        print(f"\n{name}\n\n{table(records)}", flush=True)
    report.write_json(arguments.json)


if __name__ == "__main__":
    main()
