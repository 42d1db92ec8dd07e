"""The embedding store's step of one version against another's.

    scripts/bench compare OLD [NEW] [--rounds 9] [--cores 1 2] [--json FILE]

OLD and NEW are folders of checkouts or git revisions; NEW defaults to this folder.
Each runs in its own process with its own code, on the same ids, and the two take turns.
Ratios are medians over the rounds of new time / old time, with the quartiles, which
show how reliable they are.
"""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import numpy as np
from embedding_sides.case import Case
from sides import options
from sides import process
from sides import report


@contextlib.contextmanager
def _tree(name: str) -> Iterator[pathlib.Path]:
    """Yields the folder of a checkout; a revision gets a temporary one."""
    folder = pathlib.Path(name)
    if (folder / "monolith_tf").is_dir():
        yield folder.resolve()
        return
    git = ["git", "-C", str(process.ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as parent:
        path = pathlib.Path(parent) / "tree"
        subprocess.run([*git, "add", "--quiet", "--detach", path, name], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", path], check=True)


def _compared(case: Case, rounds: int, trees: dict[str, pathlib.Path]) -> list[str]:
    """Returns the line of a case."""
    fields = json.dumps(dataclasses.asdict(case))
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, root in trees.items():
            side = process.Process(
                process.Library(name), "embedding_sides.measured", fields, root=root
            )
            sides[name] = stack.enter_context(side)
            side.ask("make")
            side.ask("run", steps=2 * case.batches)  # Now all ids have a row.
        times = process.in_turn(sides, rounds, steps=case.batches)
    old, new = times["old"], times["new"]
    ratios = np.percentile(
        new / old, [25, 50, 75], axis=0
    )  # [quartiles, clock and cpu]
    clocks = [f"{1e3 * np.median(taken[:, 0]):.2f}" for taken in (old, new)]
    quartiles = f"{ratios[0, 0]:.3f} to {ratios[2, 0]:.3f}"
    return [
        str(case.cores),
        *clocks,
        f"{ratios[1, 0]:.3f}",
        quartiles,
        f"{ratios[1, 1]:.3f}",
    ]


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=9, write=None)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default=str(process.ROOT))
    parser.add_argument("--cores", nargs="*", type=int, default=[1, 2])
    arguments = parser.parse_args()
    print(f"{report.machine()}; medians of {arguments.rounds} rounds.", flush=True)
    head = ["cores", "old ms", "new ms", "new / old", "quartiles", "cpu new / old"]
    with _tree(arguments.old) as old, _tree(arguments.new) as new:
        trees = {"old": old, "new": new}
        rows = [
            _compared(Case(cores=cores), arguments.rounds, trees)
            for cores in arguments.cores
        ]
    print(report.table(head, rows))
    report.write_json(arguments.json)


if __name__ == "__main__":
    main()
