"""Trains configs with several seeds and writes tables and plots to docs/results."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import pages
import plots
import results
import trials
from rich import progress


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    plans = plan(arguments)
    failed = [] if arguments.report else train(plans, again=arguments.again)
    for data in sorted({one.data for one in plans}):
        if results.load(data):
            results.write(data)
            plots.write(data)
            print(f"Written: {results.FOLDER / data}.md")
    pages.write()
    for message in failed:
        print(f"error: {message}", file=sys.stderr)
    return 1 if failed else 0


def plan(arguments: argparse.Namespace) -> list[trials.Plan]:
    """Returns the requested runs, seed by seed."""
    folder = trials.ROOT / "configs"
    known = {path.stem: path for path in sorted(folder.glob("*_*.yaml"))}
    names = arguments.configs or [
        name
        for name in known
        if arguments.data is None or name.partition("_")[0] == arguments.data
    ]
    for name in names:
        if name not in known:
            sys.exit(f"error: there is no {folder / name}.yaml.")
    overrides = tuple(arguments.set)
    return [
        trials.Plan(pathlib.Path(known[name]), seed, overrides)
        for seed in arguments.seeds
        for name in names
    ]


def train(plans: Sequence[trials.Plan], *, again: bool = False) -> list[str]:
    """Trains the runs without a result; returns the errors."""
    failed = []
    columns = [
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[state]}"),
    ]
    with progress.Progress(*columns) as bar:
        task = bar.add_task("zoo", total=len(plans), state="")
        for one in plans:
            bar.update(task, description=f"{one.name} seed {one.seed}")
            if again or not _is_known(one):
                try:
                    made = trials.run(one, lambda state: bar.update(task, state=state))
                    results.add(made, one.data)
                except RuntimeError as error:
                    failed.append(str(error))
            bar.advance(task)
    return failed


def _is_known(one: trials.Plan) -> bool:
    return any(
        (r["config"], r["seed"], r["digest"]) == (one.name, one.seed, one.digest)
        for r in results.load(one.data)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/zoo", description=__doc__)
    parser.add_argument(
        "configs", nargs="*", help="names in configs/, such as frappe_lr; all if none"
    )
    parser.add_argument("--data", help="all configs of this data set, such as frappe")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="SEED")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="an override for every run, such as trainer.threads=1",
    )  # fmt: skip
    parser.add_argument(
        "--again", action="store_true", help="write records of known runs again"
    )
    parser.add_argument(
        "--report", action="store_true", help="only write tables and plots again"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
