"""CIN and SeNet in time and memory: plain, plain under XLA, fused, and DeepCTR's.

    scripts/bench fused [--only cin|senet] [--size small|bars|grid] [--rounds 5]
                        [--peers] [--write]

"plain" multiplies all pairs of maps and fields in every layer and then by the kernel,
as the papers write it. Every side is a process of its own; they take turns, and medians
are printed, with the processor time behind them, for a machine that is shared.
"peak" is what a training step holds beyond its inputs, weights and what was there
before, compilation included. `--peers` installs DeepCTR below the running environment
and adds its layers. `--write` puts the table into `docs/fused.md` and draws it.
"""

import argparse
import contextlib
import dataclasses

import numpy as np
from fused_sides.case import Case
from sides import process
from sides import report

HERE = process.Library("monolith_tf")
DEEPCTR = process.Library("DeepCTR", "deepctr==0.9.4")
SIDES = {"plain": HERE, "plain_xla": HERE, "fused": HERE}
SECONDS = 0.1  # of a measurement
UNITS = {"forward": "ms", "training": "ms", "peak": "MiB"}


def cases(size: str) -> list[Case]:
    """Returns a few small cases, those of the stated aims, or a grid of others."""
    if size == "bars":
        found = [Case("cin", 4096, 26, 16, (128,) * n, "relu") for n in (2, 3)]
        return found + [Case("senet", b, 26, 16) for b in (1024, 4096)]
    found = [Case("cin", 1024, 26, 16, (128,) * n, "relu") for n in (2, 3)]
    found.append(Case("senet", 1024, 26, 16))
    if size == "small":
        return found
    shapes = [(256, 26, 16, (128,) * 2), (1024, 10, 8, (32,) * 2)]
    shapes += [(1024, 39, 16, (64,) * 2), (1024, 26, 32, (128,) * 2)]
    shapes += [(1024, 26, 16, (128,)), (128, 26, 16, (64,) * 3)]
    found += [Case("cin", *shape, "relu") for shape in shapes]
    found.append(Case("cin", 1024, 26, 16, (128,) * 3, "tanh"))
    found += [Case("senet", b, 26, 16) for b in (128, 256, 512, 16384)]
    found += [Case("senet", 1024, 40, dim) for dim in (16, 64)]
    shapes = [(4096, 10, 8), (4096, 40, 16), (4096, 26, 64)]
    return found + [Case("senet", *shape) for shape in shapes]


def start(name: str) -> process.Process:
    """Returns a process of a side."""
    return process.Process(SIDES.get(name, DEEPCTR), "fused_sides.side", name)


def measure(sides: dict[str, process.Process], case: Case, rounds: int) -> dict:
    """Returns medians of milliseconds, processor milliseconds and MiB, by side."""
    fields = dataclasses.asdict(case)
    norms = {name: side.ask("make", case=fields) for name, side in sides.items()}
    for name, found in norms.items():
        same_function = case.operation == "cin" or name != "deepctr"
        if same_function and not np.allclose(found, norms["plain"], rtol=1e-4):
            raise ValueError(f"{case}: {name} gives {found}, plain {norms['plain']}.")
    results: dict[str, dict] = {name: {} for name in sides}
    for what in ("forward", "training"):
        clock, _ = sides["plain"].ask("time", which=what, calls=1)
        asked = {"which": what, "calls": max(1, round(SECONDS / clock))}
        for name, times in process.in_turn(sides, rounds, **asked).items():
            clock, cpu = 1e3 * np.median(times, axis=0)
            results[name] |= {what: clock, f"{what}_cpu": cpu}
    with contextlib.ExitStack() as stack:
        fresh = {name: stack.enter_context(start(name)) for name in sides}
        for name, side in fresh.items():
            results[name]["peak"] = side.ask("peak", case=fields)
    return results


def rows(case: Case, found: dict[str, dict]) -> list[list[str]]:
    """Returns lines of the table: what each side took, and the plain one by it."""
    plain = found["plain"]
    return [
        [
            f"{case}: {name}",
            *(f"{one[key]:.2f}" for key in ("forward", "forward_cpu")),
            f"{plain['forward'] / one['forward']:.2f}",
            *(f"{one[key]:.2f}" for key in ("training", "training_cpu")),
            f"{plain['training'] / one['training']:.2f}",
            *(f"{one['peak'] / by:.2f}" for by in (1.0, plain["peak"])),
        ]
        for name, one in found.items()
    ]


HEAD = ["case: side", "forward ms", "cpu ms", "plain / it"]
HEAD += ["training ms", "cpu ms", "plain / it", "peak MiB", "it / plain"]


def plot(part: str, results: dict[Case, dict[str, dict]]) -> None:
    """Draws all results into `docs/<part>.png`."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, 3, figsize=(15, 1.5 + 0.6 * len(results)), sharey=True, layout="constrained"
    )
    names = list(next(iter(results.values())))
    for axis, (what, unit) in zip(axes, UNITS.items(), strict=True):
        for i, name in enumerate(names):
            places = np.arange(len(results)) + 0.8 * i / len(names)
            values = [found[name][what] for found in results.values()]
            axis.barh(places, values, 0.8 / len(names), label=name)
        axis.set_xscale("log")
        axis.set_xlabel(f"{what} [{unit}]")
    axes[0].set_yticks(np.arange(len(results)) + 0.3, [str(case) for case in results])
    axes[0].invert_yaxis()
    axes[-1].legend()
    figure.savefig(process.ROOT / "docs" / f"{part}.png", dpi=80)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=["cin", "senet"])
    parser.add_argument("--size", choices=["small", "bars", "grid"], default="small")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--write", action="store_true", help="needs matplotlib")
    arguments = parser.parse_args()
    about = f"{report.machine()}; medians of {arguments.rounds} rounds in turn."
    print(about, "  ".join(HEAD), sep="\n", flush=True)
    part = "_".join(filter(None, ["fused", arguments.size, arguments.only]))
    results: dict[Case, dict[str, dict]] = {}
    with contextlib.ExitStack() as stack:
        names = [*SIDES, *(["deepctr"] if arguments.peers else [])]
        sides = {name: stack.enter_context(start(name)) for name in names}
        for case in cases(arguments.size):
            if arguments.only not in (None, case.operation):
                continue
            results[case] = measure(sides, case, arguments.rounds)
            for row in rows(case, results[case]):
                print(*row, sep="  ", flush=True)
            if arguments.write:  # at once, so that what comes later may fail
                write(part, about, results)


def write(part: str, about: str, results: dict[Case, dict[str, dict]]) -> None:
    """Writes the results so far."""
    lines = [row for item in results.items() for row in rows(*item)]
    plot(part, results)
    text = f"{about}\n\n{report.table(HEAD, lines)}\n![As a drawing]({part}.png)"
    report.write("fused.md", part, text)


if __name__ == "__main__":
    main()
