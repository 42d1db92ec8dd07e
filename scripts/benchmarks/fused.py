"""CIN and SeNet in time and memory: plain, plain under XLA, fused, and DeepCTR's.

    scripts/bench fused [--only cin|senet] [--size small|bars|grid|crossovers]
                        [--rounds 5] [--peers] [--write]

"plain" multiplies all pairs of maps and fields in every layer and then by the kernel,
as the papers write it. The ways to compute a case take turns, all except DeepCTR's in
one process, since two processes of one program differ by more than a few percent. The
output has medians, followed by CPU time, for shared machines; "plain / it" is the
median of the rounds' ratios. "peak" is the memory that a training step, alone in a
process, adds to inputs, weights and the memory before, including compilation. "plain
again" is "plain" built a second time, which shows how much of a difference is noise.
`--size crossovers` compares with "unfused", the computation of `fused=False`.
`--peers` installs DeepCTR below the running environment and adds its layers, as they
are and under XLA. `--write` puts the table into `docs/fused.md` and plots it.
"""

import contextlib
import dataclasses
from typing import Any

import numpy as np
from fused_sides.case import Case
from sides import options
from sides import process
from sides import report

# Makes glibc keep freed memory. Otherwise the history of a process decides whether a
# step of a millisecond requests the same memory from the system every time.
_KEEP = {f"MALLOC_{what}_THRESHOLD_": str(2**25) for what in ("MMAP", "TRIM")}
_ENVIRONMENT = (("TF_USE_LEGACY_KERAS", "1"), *_KEEP.items())
HERE = process.Library("monolith_tf", environment=_ENVIRONMENT)
DEEPCTR = process.Library("DeepCTR", "deepctr==0.9.4", environment=_ENVIRONMENT)
SIDES = ["plain", "plain_xla", "fused"]
CROSSING = ["unfused", "fused"]
PEERS = ["deepctr", "deepctr_xla"]
AGAIN = "plain again"  # Small SeNets take a millisecond, and two equal ones differ.
SECONDS = 0.1  # of a measurement
UNITS = {"forward": "ms", "training": "ms", "peak": "MiB"}


def cases(size: str) -> list[Case]:
    """Returns a few small cases, those of the stated targets, or many others."""
    if size == "bars":
        found = [Case("cin", 4096, 26, 16, (128,) * n, "relu") for n in (2, 3)]
        return found + [Case("senet", b, 26, 16) for b in (1024, 4096)]
    if size == "crossovers":
        shapes = [(b, 26, 16, (128,) * n) for n in (2, 3) for b in (32, 64, 128, 256)]
        shapes += [(b, 10, 8, (32,) * n) for n in (2, 3) for b in (512, 1024, 4096)]
        shapes += [(1024, 10, dim, (units,) * 2) for dim, units in ((8, 128), (32, 32))]
        shapes += [(512, m, 16, (units,) * 2) for m, units in ((16, 32), (26, 32))]
        shapes.append((512, 26, 16, (64,) * 2))
        return [Case("cin", *shape, "relu") for shape in shapes]
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


class Way:
    """One way to compute a case, in a process with several."""

    def __init__(self, seat: process.Process, name: str) -> None:
        self._seat, self._name = seat, name

    def ask(self, method: str, **arguments: Any) -> Any:
        """Returns the result of `Side.<method>` there for this way."""
        return self._seat.ask(method, way=self._name, **arguments)


def start(name: str) -> process.Process:
    """Returns a process for a way of this name."""
    return process.Process(DEEPCTR if name in PEERS else HERE, "fused_sides.side")


def measure(names: list[str], case: Case, rounds: int) -> dict:
    """Returns medians of milliseconds, processor milliseconds and MiB, by way."""
    first = names[0]
    fields = dataclasses.asdict(case)
    results: dict[str, dict] = {}
    with contextlib.ExitStack() as stack:
        # New processes for each case, as TensorFlow keeps freed memory.
        shared = stack.enter_context(start(first))
        ways, norms = {}, {}
        for name in names:
            with contextlib.ExitStack() as alone:
                keeps = stack if name in PEERS else alone
                seat = keeps.enter_context(start(name))
                norms[name], peak = Way(seat, name).ask("make", case=fields)
                results[name] = {"peak": peak}
            if name not in PEERS:
                seat = shared
                Way(seat, name).ask("make", case=fields)
            ways[name] = Way(seat, name)
            same_function = case.operation == "cin" or name not in PEERS
            if same_function and not np.allclose(norms[name], norms[first], rtol=1e-4):
                raise ValueError(
                    f"{case}: {name} returns {norms[name]}, not {norms[first]}."
                )
        for what in ("forward", "training"):
            clock, _ = ways[first].ask("time", which=what, calls=1)
            asked = {"which": what, "calls": max(1, round(SECONDS / clock))}
            found = process.in_turn(ways, rounds, **asked)
            for name, times in found.items():
                clock, cpu = 1e3 * np.median(times, axis=0)
                gain = np.median(found[first][:, 0] / times[:, 0])
                results[name] |= {what: clock, f"{what}_cpu": cpu, f"{what}_gain": gain}
    return results


def rows(case: Case, found: dict[str, dict]) -> list[list[str]]:
    """Returns the table's lines: each side's measurements, and the first / each."""
    first = next(iter(found.values()))
    return [
        [
            f"{case}: {name}",
            *(f"{one[w]:.2f}" for w in ("forward", "forward_cpu", "forward_gain")),
            *(f"{one[w]:.2f}" for w in ("training", "training_cpu", "training_gain")),
            *(f"{one['peak'] / by:.2f}" for by in (1.0, first["peak"])),
        ]
        for name, one in found.items()
    ]


def head(names: list[str]) -> list[str]:
    """Returns the names of the columns."""
    found = ["case: side", "forward ms", "cpu ms", f"{names[0]} / it"]
    found += ["training ms", "cpu ms", f"{names[0]} / it"]
    return [*found, "peak MiB", f"it / {names[0]}"]


def plot(part: str, results: dict[Case, dict[str, dict]]) -> None:
    """Plots all results into `docs/<part>.png`."""
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
    parser = options.parser(__doc__, rounds=5, write="needs matplotlib")
    parser.add_argument("--only", choices=["cin", "senet"])
    sizes = ["small", "bars", "grid", "crossovers"]
    parser.add_argument("--size", choices=sizes, default="small")
    parser.add_argument("--peers", action="store_true")
    arguments = parser.parse_args()
    names = CROSSING if arguments.size == "crossovers" else SIDES
    names = [*names, *(PEERS if arguments.peers else [])]
    about = f"{report.machine()}; medians of {arguments.rounds} rounds in turn."
    print(about, "  ".join(head(names)), sep="\n", flush=True)
    part = "_".join(filter(None, ["fused", arguments.size, arguments.only]))
    results: dict[Case, dict[str, dict]] = {}
    for case in cases(arguments.size):
        if arguments.only not in (None, case.operation):
            continue
        asked = [*names, AGAIN] if case.operation == "senet" else names
        results[case] = measure(asked, case, arguments.rounds)
        for row in rows(case, results[case]):
            print(*row, sep="  ", flush=True)
        if arguments.write:  # at once, in case a later one fails
            write(part, about, results)
    table(results)
    report.write_json(arguments.json)


def table(results: dict[Case, dict[str, dict]]) -> str:
    """Returns the results as a table."""
    names = list(next(iter(results.values())))
    lines = [row for item in results.items() for row in rows(*item)]
    return report.table(head(names), lines)


def write(part: str, about: str, results: dict[Case, dict[str, dict]]) -> None:
    """Writes the results so far."""
    plot(part, results)
    text = f"{about}\n\n{table(results)}\n![As a drawing]({part}.png)"
    report.write("fused.md", part, text)


if __name__ == "__main__":
    main()
