"""Checkpoints of a large table: at rest, while training goes on, and of changes.

    scripts/bench checkpoint [--rows 10000000] [--dim 16] [--touched 0.01]
                             [--servers 2 0] [--rounds 1] [--write]

The table is trained by Adagrad, on parameter servers (processes on this machine) or, as
0 servers, in one process. Prints for each kind of checkpoint for how long training
rests, how long it takes in all, its bytes, and by how much the chief's memory grows at
most. The medians of the rounds. Bars: training rests less than 0.5 s for a whole
checkpoint that is written while training goes on; a delta takes less than 5 % of the
time and bytes of a whole one at rest; the chief's memory does not grow with the table.
`--write` puts the tables into `docs/checkpoint_benchmark.md`.
"""

import statistics

from sides import options
from sides import process
from sides import report

_KINDS = {
    "full": "whole, at rest",
    "live": "whole, while training goes on",
    "delta": "delta",
}


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=1)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--touched", type=float, default=0.01)
    parser.add_argument("--servers", type=int, nargs="+", default=[2, 0])
    arguments = parser.parse_args()
    parts = [report.machine() + "."]
    for servers in arguments.servers:
        touched = int(arguments.rows * arguments.touched)
        sizes = map(str, (servers, arguments.rows, arguments.dim, touched))
        with process.Process(
            process.Library("monolith_tf"), "checkpoint_sides.job", *sizes
        ) as side:
            found = {
                kind: _medians([side.ask(kind) for _ in range(arguments.rounds)])
                for kind in _KINDS
            }
            side.ask("close")
        where = f"{servers} parameter servers" if servers else "One process"
        live, full, delta = found["live"], found["full"], found["delta"]
        parts.append(
            f"{where}, {arguments.rows:,} rows of dim {arguments.dim}, "
            f"{touched:,} touched:\n\n{_table(found)}\n"
            f"A delta takes {_share(delta, full, 'whole')} of the seconds and "
            f"{_share(delta, full, 'bytes')} of the bytes of a whole one at rest. "
            f"While one was written, {live['steps']:.0f} steps were taken, the longest "
            f"of {live['longest_step']:.3f} s; without, one takes "
            f"{live['usual_step']:.3f} s."
        )
        print(parts[-1], flush=True)
    if arguments.write:
        report.write("checkpoint_benchmark.md", "checkpoint", "\n\n".join(parts))
    report.write_json(arguments.json)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def _share(delta: dict[str, float], full: dict[str, float], what: str) -> str:
    return f"{delta[what] / full[what]:.1%}"


def _table(found: dict[str, dict[str, float]]) -> str:
    head = ["checkpoint", "training rests, s", "in all, s", "MB", "chief's memory, MiB"]
    return report.table(
        head,
        [
            [
                name,
                f"{found[kind]['rest']:.2f}",
                f"{found[kind]['whole']:.2f}",
                f"{found[kind]['bytes'] / 1e6:,.1f}",
                f"{found[kind]['peak']:,.0f}",
            ]
            for kind, name in _KINDS.items()
        ],
    )


if __name__ == "__main__":
    main()
