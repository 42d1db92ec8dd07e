"""Jobs on parameter servers and workers, against plain Keras in the same cluster.

    scripts/bench cluster [--tables throughput features tables]
                          [--clusters 0+0 1+1 1+2 2+2] [--rounds 3] [--write]

A cluster is written as parameter servers + workers; 0+0 is a single process. All tasks
are processes on this machine. The sides of a cluster share its chief, parameter servers
and workers, and take turns: the job of a config in this project's own loop, with the
pipeline off and on (`prefetch` and `deferred_push`); and `tf_keras.layers.Embedding`
with Adagrad under the same strategy and coordinator, partitioned by
`MinSizePartitioner`, with as many steps in a closure and the same batches from the same
reader. Every batch is seen before timing starts, so there are no new ids.

An embedding row is needed once per step and distinct id, and returns as a gradient:
`distinct ids * (8 + 4 * dim) * 2` bytes are the ideal. The measured bytes of a step are
those of the loopback device, including dense variables and all other traffic. Targets,
relative to the faster plain side: 2.3 times its samples/s with 2 parameter servers and
2 workers, and as many with 1 and 1. `--write` puts the tables into
`docs/cluster_benchmark.md`.
"""

import contextlib
import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from cluster_sides.case import Case
from sides import options
from sides import process
from sides import report

from monolith_tf.testing import cluster_processes

_SIDES = {
    "ours plain": "monolith_tf, pipeline off",
    "ours overlapped": "monolith_tf, pipeline on",
    "plain one": "tf_keras, one layer",
    "plain many": "tf_keras, a layer per feature",
}
_ALONE = [side for side in _SIDES if side != "ours overlapped"]
_OURS = [side for side in _SIDES if side.startswith("ours")]
_CLUSTERS = ("0+0", "1+1", "1+2", "2+2")  # Parameter servers and workers.
_FEATURES = (4, 26, 100)
_TABLES = (1, 26)


@dataclasses.dataclass(frozen=True)
class _Seat:
    """One side among those of a chief."""

    chief: process.Process
    side: str

    def ask(self, method: str, **arguments: int) -> object:
        return self.chief.ask(method, side=self.side, **arguments)


def _measure(
    case: Case,
    cluster: tuple[int, int],
    sides: Sequence[str],
    rounds: int,
    limit_secs: float,
) -> dict[str, np.ndarray]:
    """Returns each side's seconds and bytes of a step, `[rounds, 2]`."""
    ps, workers = cluster
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config, tf_config, overrides = str(case.write(folder)), "", []
        if workers:
            tasks = stack.enter_context(
                cluster_processes.ClusterProcesses(
                    config, folder / "model", ps=ps, workers=workers
                )
            )
            tasks.start(*(t.name for t in tasks.tasks["chief"].others()))
            tf_config = tasks.tasks["chief"].to_tf_config()
            overrides = [f"cluster.ps={ps}", f"cluster.workers={workers}"]
        fields = json.dumps(dataclasses.asdict(case))
        chief = process.Process(
            process.Library("chief"),
            "cluster_sides.chief",
            *(fields, str(limit_secs), tf_config, config, *overrides),
        )
        with chief:
            seats = {side: _Seat(chief, side) for side in sides}
            for seat in seats.values():
                seat.ask("make")
                seat.ask("run", steps=case.batches)
            found = process.in_turn(seats, rounds, steps=case.batches)
    taken = {side: (1e3 * t[:, 0]).round(1).tolist() for side, t in found.items()}
    print(case, cluster, taken, f"{time.monotonic() - begin:.0f} s", flush=True)
    return found


def throughput(
    case: Case, cluster: tuple[int, int], rounds: int, limit_secs: float
) -> str:
    """Returns the table of all sides on a cluster."""
    ideal = case.distinct() * (8 + 4 * case.dim) * 2
    sides = list(_SIDES) if cluster[1] else _ALONE
    found = _measure(case, cluster, sides, rounds, limit_secs)
    plain = [side for side in sides if side not in _OURS]
    best = found[min(plain, key=lambda side: np.median(found[side][:, 0]))]
    rows = []
    for side, taken in found.items():
        seconds, sent = np.median(taken, axis=0)
        ratio = np.median(best[:, 0] / taken[:, 0])
        row = [_SIDES[side], f"{1e3 * seconds:.1f}", f"{case.batch / seconds:,.0f}"]
        rows.append([*row, f"{ratio:.2f}"])
        if cluster[1]:
            rows[-1] += [f"{sent / 1e6:.1f}", f"{sent / ideal:.2f}"]
    head = ["", "step ms", "samples/s", "times the faster plain one"]
    head += ["MB a step", "MB / ideal"] if cluster[1] else []
    table = report.table(head, rows)
    where = "{} PS + {} workers".format(*cluster) if cluster[1] else "One process"
    return f"{where}. {_described(case)} Ideal: {ideal / 1e6:.1f} MB.\n\n{table}"


def _described(case: Case) -> str:
    return (
        f"Batches of {case.batch:,} examples, {case.features} features, {case.rows:,} "
        f"ids in all, log-uniform, {case.distinct():,.0f} of them in a batch; dim "
        f"{case.dim}; {case.loop} steps in a closure."
    )


def features(case: Case, rounds: int, limit_secs: float) -> str:
    """Returns the table of time against the number of features."""
    lines = []
    for count in _FEATURES:
        sized = dataclasses.replace(case, features=count)
        found = _measure(sized, (1, 1), list(_SIDES), rounds, limit_secs)
        lines.append([str(count), f"{sized.distinct():,.0f}", *_milliseconds(found)])
    head = ["features", "distinct ids", *(f"{name}, ms" for name in _SIDES.values())]
    return (
        f"A step with 1 PS + 1 worker, of {case.batch:,} examples, dim {case.dim}, "
        f"{case.rows:,} ids in all.\n\n{report.table(head, lines)}"
    )


def tables(case: Case, rounds: int, limit_secs: float) -> str:
    """Returns the table of time against the number of tables."""
    lines = []
    for count in _TABLES:
        sized = dataclasses.replace(case, tables=count)
        found = _measure(sized, (1, 1), _OURS, rounds, limit_secs)
        lines.append([str(count), *_milliseconds(found)])
    head = ["tables", *(f"{_SIDES[side]}, ms" for side in _OURS)]
    return f"{_described(case)} 1 PS + 1 worker.\n\n{report.table(head, lines)}"


def _milliseconds(found: dict[str, np.ndarray]) -> list[str]:
    return [f"{1e3 * np.median(taken[:, 0]):.1f}" for taken in found.values()]


_ALONG = {f.__name__: f for f in (features, tables)}


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=3)
    parser.add_argument(
        "--tables", nargs="*", choices=["throughput", *_ALONG], default=["throughput"]
    )
    parser.add_argument("--clusters", nargs="*", choices=_CLUSTERS, default=_CLUSTERS)
    parser.add_argument(
        "--limit_secs", type=float, default=300.0, help="time limit of one cluster"
    )
    options.add_fields(parser, Case, but="tables")
    arguments = parser.parse_args()
    case = Case(**options.fields(arguments, Case, but="tables"))
    about = f"{report.machine('tf-keras')}; medians of {arguments.rounds} rounds."
    print(about, flush=True)
    settings = (arguments.rounds, arguments.limit_secs)
    page = "cluster_benchmark.md" if arguments.write else None
    for name in arguments.tables:
        if name == "throughput":
            for cluster in arguments.clusters:
                ps, workers = map(int, cluster.split("+"))
                part = throughput(case, (ps, workers), *settings)
                report.give(page, f"{name} {cluster}", f"{about}\n\n{part}")
        else:
            part = _ALONG[name](case, *settings)
            report.give(page, name, f"{about}\n\n{part}")
    report.write_json(arguments.json)


if __name__ == "__main__":
    main()
