"""Every layer, forward and with gradients, against its peers in other libraries.

    scripts/bench layers [--peers] [--only CIN DCN] [--rounds 7] [--seconds 0.1]
                         [--write]

Each library runs in its own process; our layer and a peer's of the same function take
turns, on the same inputs and weights, after their outputs and gradients have been
compared. Without `--peers` the peers are those installed with this project, tf_keras
and TensorFlow Recommenders; with it, DeepCTR and keras-rs are installed below the
running environment, on its TensorFlow. Times are medians over the rounds. Ratios are
medians of our time / theirs, below 1 if ours is faster: of wall time and, for machines
with other load, of CPU time. `--write` puts the tables into `docs/layer_benchmark.md`.
"""

import tempfile

import numpy as np
from layer_sides import sizes as sizes_lib
from sides import options
from sides import process
from sides import report

MODES = ("forward", "backward")
TOLERANCE = 1e-3  # for all outputs together, and for all gradients
KERAS_3 = (("TF_USE_LEGACY_KERAS", "0"), ("KERAS_BACKEND", "tensorflow"))

OURS = process.Library("monolith_tf")
# By module below `layer_sides`.
HERE = {
    "keras_side": process.Library("tf_keras"),
    "tfrs_side": process.Library("TFRS"),
}
PEERS = {
    "deepctr_side": process.Library("DeepCTR", "deepctr==0.9.4"),
    "keras_rs_side": process.Library("keras-rs", "keras-rs==0.4.0", KERAS_3),
}


def _start(library: process.Library, module: str) -> process.Process:
    return process.Process(library, "layer_sides.side", module)


class Bench:
    """Our process, and the comparisons so far."""

    def __init__(
        self, sizes: dict, rounds: int, seconds: float, only: list[str]
    ) -> None:
        self._sizes, self._rounds, self._seconds = sizes, rounds, seconds
        self._ours = _start(OURS, "ours")
        cases = self._ours.ask("cases")
        self._cases = [n for n in cases if not only or n.split()[0].strip(",") in only]
        self._done: set[str] = set()

    def close(self) -> None:
        """Ends our process."""
        self._ours.close()

    def against(self, module: str, library: process.Library) -> str:
        """Returns a table of the layers that another library also has."""
        rows = []
        print(f"\n{library.name}", flush=True)
        with _start(library, module) as peer:
            cases = peer.ask("cases")
            for name in self._cases:
                if name in cases:
                    self._done.add(name)
                    rows.append(self._row(name, peer, **cases[name]))
        name = library.install or library.name
        head = [name, *(["ours ms", "peer ms", "clock", "cpu"] * 2), "remarks"]
        return report.table(head, rows) if rows else ""

    def _row(self, name: str, peer: process.Process, same: bool, remark: str) -> list:
        difference = self._make_both(name, peer, same)
        row = [name]
        for mode in MODES:
            calls = self._calls(mode)
            sides = {"ours": self._ours, "peer": peer}
            found = process.in_turn(sides, self._rounds, which=mode, calls=calls)
            row += [f"{1e3 * np.median(found[side][:, 0]):.2f}" for side in sides]
            ratios = np.median(found["ours"] / found["peer"], axis=0)
            row += [f"{ratio:.2f}" for ratio in ratios]
        if difference > TOLERANCE:
            remark = f"NOT THE SAME: differs by {difference:.1e} {remark}"
        print(*row, remark, sep="  ", flush=True)
        return [*row, remark]

    def _make_both(self, name: str, peer: process.Process, same: bool) -> float:
        """Makes a layer on both sides; returns the relative difference of the two."""
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = f"{folder}/ours.npz", f"{folder}/theirs.npz"
            self._ours.ask("make", name=name, sizes=self._sizes, give=ours)
            peer.ask("make", name=name, sizes=self._sizes, give=theirs, take=ours)
            if not same:
                return 0.0
            a, b = np.load(ours), np.load(theirs)
            return max(_distance(a[key], b[key]) for key in ("outputs", "gradients"))

    def _calls(self, mode: str) -> int:
        """Returns the number of calls in a measurement."""
        clock, _ = self._ours.ask("time", which=mode, calls=1)
        return max(1, round(self._seconds / max(clock, 1e-6)))

    def alone(self) -> str:
        """Returns a table of the layers that no other library has."""
        rows = []
        for name in self._cases:
            if name in self._done:
                continue
            self._ours.ask("make", name=name, sizes=self._sizes)
            row = [name]
            for mode in MODES:
                asked = {"which": mode, "calls": self._calls(mode)}
                found = process.in_turn({"": self._ours}, self._rounds, **asked)
                row.append(f"{1e3 * np.median(found[''][:, 0]):.2f}")
            print(*row, sep="  ", flush=True)
            rows.append(row)
        head = ["without a peer", "forward ms", "with gradients ms"]
        return report.table(head, rows) if rows else ""


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the norm of the difference, relative to the norm of `a`."""
    if a.shape != b.shape:
        return float("inf")
    # Not the largest difference: near 0, rounding decides the slope of a relu.
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=7)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], metavar="LAYER")
    parser.add_argument("--seconds", type=float, default=0.1, help="per measurement")
    options.add_fields(parser, sizes_lib.Sizes)
    arguments = parser.parse_args()
    sizes = options.fields(arguments, sizes_lib.Sizes)
    about = (
        f"{report.machine('tf_keras', 'tensorflow-recommenders')}. {sizes}; medians of "
        f"{arguments.rounds} rounds in turn; forward, then forward with all gradients."
    )
    print(about, flush=True)
    bench = Bench(sizes, arguments.rounds, arguments.seconds, arguments.only)
    libraries = HERE | (PEERS if arguments.peers else {})
    tables = [about + "\n"]
    for module, library in libraries.items():
        tables.append(bench.against(module, library))
    tables.append(bench.alone())
    bench.close()
    if arguments.write:
        text = "\n".join(filter(None, tables))
        report.write("layer_benchmark.md", "layers", text)
    report.write_json(arguments.json)


if __name__ == "__main__":
    main()
