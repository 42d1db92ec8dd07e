"""Training of DCNv2 on Frappe on one core, against FuxiCTR and DeepCTR.

    scripts/bench zoo [--peers] [--data data/frappe] [--rounds 5] [--write]

The network is that of `configs/frappe_dcnv2.yaml`. Each side is a process on the same
core with one thread; they take turns, one epoch of the same rows at a time, shuffled
again, after a warm-up epoch. With `--peers`, FuxiCTR on PyTorch and DeepCTR on tf_keras
are installed below the running environment (2 GB). Numbers are medians over the rounds.
A ratio is the median over the rounds of a peer's time / ours, above 1 if ours is
faster: of wall time and, for machines with other load, of CPU time. The AUC on the
valid split after as many epochs shows that all have learned the same.

Ours trains from the files, in its own loop. The peers have the rows in memory, which
saves them reading: FuxiCTR with its `train_epoch`, on batches cut by indexing instead
of its loaders, DeepCTR with `Model.fit`. All use Adam with the same rate, clip by the
global norm, and add the same L2 gradient to every row at every step. Differences: our
last layers have two biases, not one; DeepCTR's batch normalization takes no arguments
for momentum and epsilon, so they are set from outside; and the peers' ids are numbered
from 0 beforehand, so they need no index. `--write` puts the table into
`docs/zoo_benchmark.md`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile

import numpy as np
from sides import options
from sides import process
from sides import report
from zoo_sides import case as case_lib

from monolith_tf import config as config_lib
from monolith_tf import metrics

_CONFIG = process.ROOT / "configs" / "frappe_dcnv2.yaml"
_OURS = {"ours": process.Library("monolith_tf")}
# By module below `zoo_sides`. FuxiCTR needs polars below 2, but does not declare it.
_PEERS = {
    "fuxictr_side": process.Library(
        "FuxiCTR", "fuxictr==2.3.10 torch==2.13.0 polars==1.44.2", alone=True
    ),
    "deepctr_side": process.Library("DeepCTR", "deepctr==0.9.4"),
}


def make_case(data: pathlib.Path, folder: str) -> case_lib.Case:
    """Returns the case of our config.

    Args:
      data: Folder with the Parquet files.
      folder: Folder for the sides' files.
    """
    config = config_lib.load_config(_CONFIG, data="ignored")
    cross, deep = (block.args for block in config.model.blocks)
    table, optimizer = config.default_table, config.trainer.optimizer
    return case_lib.Case(
        config=str(_CONFIG),
        train=str(data / "train.parquet"),
        eval=str(data / "valid.parquet"),
        folder=folder,
        features=[feature.name for feature in config.features],
        label=config.labels[0].name,
        batch=config.data.batch_size,
        dim=table.dim,
        cross_layers=cross["layer_num"],
        units=deep["output_dims"][:-1],
        dropout=deep["dropout"],
        momentum=deep["batch_normalization_momentum"],
        epsilon=deep["batch_normalization_epsilon"],
        l2=table.l2,
        learning_rate=optimizer.learning_rate,
        adam_epsilon=optimizer.epsilon,
        clip_norm=config.trainer.clip_norm,
    )


def measure(
    case: case_lib.Case, rounds: int, libraries: dict[str, process.Library]
) -> str:
    """Returns the table of all sides."""
    fields = json.dumps(dataclasses.asdict(case))
    data = case_lib.read(case)
    with contextlib.ExitStack() as stack:
        sides = {
            library.name: stack.enter_context(
                process.Process(library, f"zoo_sides.{module}", fields)
            )
            for module, library in libraries.items()
        }
        times = process.in_turn(sides, rounds)
        versions: dict[str, str] = {}
        learned = {}
        for name, side in sides.items():
            versions |= side.ask("versions")
            side.ask("predict", give=f"{case.folder}/found.npy")
            auc = metrics.create("auc")
            auc.update(np.load(f"{case.folder}/found.npy"), data.eval.labels)
            learned[name] = [f"{side.ask('parameters'):,}", f"{auc.result():.4f}"]
    ours = next(iter(times.values()))
    examples = len(data.train.labels)
    steps = -(-examples // case.batch)
    rows = []
    for name, taken in times.items():
        clock, cpu = np.median(taken, axis=0)
        ratios = np.median(taken / ours, axis=0)
        rows.append(
            [name, f"{examples / clock:,.0f}", f"{1e3 * clock / steps:.1f}"]
            + [f"{1e3 * cpu / steps:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
            + learned[name]
        )
    head = ["", "examples/s", "step ms", "cpu ms", "time / ours", "cpu / ours"]
    head += ["parameters", "valid AUC"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{named}. Epochs of {examples:,} examples in {steps} steps, the AUC after "
        f"{rounds + 1}.\n\n{report.table(head, rows)}"
    )


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=5)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument(
        "--data", type=pathlib.Path, default=process.ROOT / "data" / "frappe"
    )
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    for name in ("train.parquet", "valid.parquet"):
        if not (data / name).exists():
            parser.error(
                f"{data / name} is missing. Make it with scripts/prepare/frappe.py, "
                "whose docstring has the download link, or set --data."
            )
    libraries = _OURS | (_PEERS if arguments.peers else {})
    for library in libraries.values():
        library.python()  # Installs it if missing, with all cores.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # The sides' too.
    about = f"{report.machine()}; medians of {arguments.rounds} rounds in turn."
    print(about, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        table = measure(make_case(data, folder), arguments.rounds, libraries)
    page = "zoo_benchmark.md" if arguments.write else None
    report.give(page, "training", f"{about}\n\n{table}")
    report.write_json(arguments.json)


if __name__ == "__main__":
    main()
