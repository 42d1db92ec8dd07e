"""The embedding store against its peers, and against itself at other sizes.

    scripts/bench embedding [--peers] [--tables peers keras ids features rows skew
                            optimizers reading workers] [--rounds 7] [--write]

A step looks up 26 features of 4096 examples, dim 16, takes half the sum of squares as
the loss, and updates with Adagrad. The ids of a feature are log-uniform below 200,000.
The sides of "peers" are the fastest forms of tf_keras and, if there is a compiler, a
C++ loop written for this case; with `--peers` also torch, FBGEMM and TensorFlow
Recommenders Addons, which are installed below the running environment (4 GB; a pip
index with CPU builds of torch saves most of it). On several cores torch and FBGEMM also
run with one thread, as more may slow them down. The table "keras" has all forms of
tf_keras. All sides start from the same rows and are compared after three steps; then
they take turns. Ratios are medians over the rounds of their time / ours: of wall time
and, for machines with other load, of CPU time.

The other tables have no peers. The last line of "rows", 50 million ids of dim 8, takes
about 7 GiB, and stops at 16. `--write` puts the tables into
`docs/embedding_benchmark.md`.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
import typing
from collections.abc import Iterator

import numpy as np
from embedding_sides import cpp_side
from embedding_sides.case import Case
from sides import options
from sides import process
from sides import report

from monolith_tf.embedding import optimizer_spec

_TORCH = "torch==2.13.0 fbgemm-gpu-cpu==1.8.0 numpy"
_ADDONS = "tensorflow==2.16.2 tf-keras==2.16.0 tensorflow-recommenders-addons==0.8.1"
_OURS = process.Library("monolith_tf")
# The forms of tf_keras: layers, the rest of the form, and whether it is a fast one.
_FORMS = [
    ("many", "legacy", True),
    ("many", "adagrad", True),
    ("one", "legacy", False),
    ("one", "adagrad", False),
    ("one", "jit_optimizer", False),
    ("many", "jit_step", False),
    ("one", "dense", False),
]
_NAMES = {"one": "one layer", "many": "a layer per feature"}
_KERAS = {
    ("keras_side", layers, form): process.Library(
        f"tf_keras, {_NAMES[layers]}, {form.replace('_', ' ')}"
    )
    for layers, form, _ in _FORMS
}
_HERE = {
    ("keras_side", layers, form): _KERAS["keras_side", layers, form]
    for layers, form, is_fast in _FORMS
    if is_fast
}
# Threads that wait without spinning: on a machine with other load, two that spin take
# the processor from each other.
_WAIT = (("OMP_WAIT_POLICY", "PASSIVE"),)
_PEERS = {
    ("torch_side",): process.Library("torch", _TORCH, _WAIT, alone=True),
    ("fbgemm_side",): process.Library("FBGEMM", _TORCH, _WAIT, alone=True),
    ("tfra_side",): process.Library("Recommenders Addons", _ADDONS, alone=True),
}
_ONE_THREAD = {
    ("torch_side", "1"): process.Library("torch, one thread", _TORCH, alone=True),
    ("fbgemm_side", "1"): process.Library("FBGEMM, one thread", _TORCH, alone=True),
}
_LOOP = {("cpp_side",): process.Library("C++ loop")}
_TOLERANCE = 1e-4
_LIMIT_GIB = 16
_ROWS = (100_000, 1_000_000, 10_000_000, 50_000_000)
_SKEWS = (0.0, 0.5, 1.0, 1.25, 1.5)


def _open(library: process.Library, case: Case, *side: str) -> process.Process:
    module, *arguments = side
    fields = json.dumps(dataclasses.asdict(case))
    return process.Process(library, f"embedding_sides.{module}", fields, *arguments)


def peers(case: Case, rounds: int, libraries: dict) -> str:
    """Returns the table of all sides."""
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        sides = {
            library.name: stack.enter_context(_open(library, case, *side))
            for side, library in ({("ours",): _OURS} | libraries).items()
        }
        versions: dict[str, str] = {}
        for name, side in sides.items():
            side.ask("make", take=f"{folder}/initial.npy")
            versions |= side.ask("versions")
            if name == _OURS.name:
                side.ask("initial", give=f"{folder}/initial.npy")
        found = {}
        for name, side in sides.items():
            side.ask("run", steps=3)
            side.ask("weights", give=f"{folder}/weights.npy")
            found[name] = np.load(f"{folder}/weights.npy")
            _check_same(name, found[name], found[_OURS.name])
            side.ask("run", steps=case.batches)  # Now all ids have a row.
        times = process.in_turn(sides, rounds, steps=case.batches)
    ours = times[_OURS.name]
    rows = []
    for name, taken in times.items():
        clock, cpu = np.median(1e3 * taken, axis=0)
        ratios = np.median(taken / ours, axis=0)
        rows.append(
            [name, f"{clock:.1f}", f"{cpu:.1f}", f"{1e3 * case.batch / clock:,.0f}"]
            + [f"{ratio:.2f}" for ratio in ratios]
        )
    head = ["", "step ms", "cpu ms", "examples/s", "time / ours", "cpu / ours"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{_described(case)} {named}.\n\n{report.table(head, rows)}"


def _check_same(name: str, found: np.ndarray, ours: np.ndarray) -> None:
    difference = np.linalg.norm(found - ours) / np.linalg.norm(ours)
    if not difference < _TOLERANCE:
        sys.exit(f"{name} computes another result: it differs by {difference:.1e}.")


def _described(case: Case) -> str:
    return (
        f"On {case.cores} processor{'s' * (case.cores > 1)}: batches of {case.batch:,} "
        f"examples, {case.features} features of {case.ids:,} ids each, dim {case.dim}."
    )


def _times(
    cases: dict[str, Case], rounds: int, **make: str
) -> Iterator[tuple[str, float, dict]]:
    """Yields names, milliseconds of a step and facts; the cases take turns."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, case in cases.items():
            sides[name] = stack.enter_context(_open(_OURS, case, "measured"))
            sides[name].ask("make", **make)
            sides[name].ask("run", steps=case.batches)
        steps = next(iter(cases.values())).batches
        times = process.in_turn(sides, rounds, steps=steps)
        for name, side in sides.items():
            yield name, 1e3 * np.median(times[name][:, 0]), side.ask("facts")


def ids(case: Case, rounds: int) -> str:
    """Returns the table of time against the size of the ids."""
    cases = {
        f"integers below {case.ids:,}": case,
        "the same integers and 2^40": dataclasses.replace(case, first_id=1 << 40),
    }
    rows = [
        [name, f"{time:.1f}", f"{facts['distinct']:,.0f}"]
        for name, time, facts in _times(cases, rounds)
    ]
    return (
        f"{_described(case)} Small integers are found by their place, all other ids, "
        "and so hashes of strings, in a hash table.\n\n"
        f"{report.table(['ids', 'step ms', 'distinct ids'], rows)}"
    )


def features(case: Case, rounds: int) -> str:
    """Returns the table of time against features, at as many ids in all."""
    total, ids = case.batch * case.features, case.ids * case.features
    cases = {
        str(count): dataclasses.replace(
            case, features=count, batch=total // count, ids=ids // count
        )
        for count in (4, 26, 200)
    }
    rows = [
        [name, f"{time:.1f}", f"{facts['distinct']:,.0f}",
         f"{1e6 * time / facts['distinct']:.0f}"]
        for name, time, facts in _times(cases, rounds)
    ]  # fmt: skip
    head = ["features", "step ms", "distinct ids", "ns per distinct id"]
    return (
        f"On one processor: as many ids in all, {total:,} a step.\n\n"
        f"{report.table(head, rows)}"
    )


def skew(case: Case, rounds: int) -> str:
    """Returns the table of time against the skew of the ids."""
    cases = {str(s): dataclasses.replace(case, skew=s) for s in _SKEWS}
    rows = [
        [name, f"{time:.1f}", f"{facts['distinct']:,.0f}"]
        for name, time, facts in _times(cases, rounds)
    ]
    table = report.table(["skew", "step ms", "distinct ids"], rows)
    return f"{_described(case)} An id of rank r comes like r ** -skew.\n\n{table}"


def optimizers(case: Case, rounds: int) -> str:
    """Returns the table of time against the optimizer."""
    union = typing.get_args(optimizer_spec.RowOptimizerSpec)[0]
    rows = []
    for spec in typing.get_args(union):
        (found,) = _times({spec.name: case}, rounds, optimizer=spec.name)
        rows.append([spec.name, f"{found[1]:.1f}"])
    table = report.table(["optimizer", "step ms"], rows)
    return f"{_described(case)}\n\n{table}"


def rows(case: Case, rounds: int) -> str:
    """Returns the table of time and memory against the rows in use, at dim 8."""
    lines = []
    for count in _ROWS:
        ids = -(-count // case.features)
        sized = dataclasses.replace(case, ids=ids, dim=8)
        with _open(_OURS, sized, "measured") as side:
            side.ask("make")
            filled = side.ask("fill", limit_gib=_LIMIT_GIB)
            side.ask("run", steps=case.batches)
            times = process.in_turn({"": side}, rounds, steps=case.batches)[""]
            memory = side.ask("memory")
        lines.append(
            [f"{ids * case.features:,}", f"{1e3 * np.median(times[:, 0]):.1f}",
             f"{filled['inserted']:,.0f}", f"{filled['extra_bytes']:.0f}",
             f"{memory['now']:.2f}", f"{memory['peak']:.2f}"]
        )  # fmt: skip
    head = ["rows", "step ms", "inserted/s", "bytes per id beyond the row"]
    table = report.table([*head, "resident GiB", "peak GiB"], lines)
    return (
        "On one processor, dim 8 with Adagrad: 64 bytes a row. What an id takes "
        "beyond them counts TensorFlow's own memory in, which a small table shows."
        f"\n\n{table}"
    )


def reading(case: Case, rounds: int) -> str:
    """Returns the table of the operations that read the store."""
    with _open(_OURS, case, "measured") as side:
        side.ask("make")
        side.ask("run", steps=case.batches)
        rates = side.ask("reading", rounds=rounds)
    names = {
        "lookup": "lookup only, ids",
        "frozen": "lookup in a frozen store, ids",
        "freeze": "freeze for export, rows",
        "save": "checkpoint with state, rows",
    }
    lines = [[names[name], f"{rate / 1e6:.2f}"] for name, rate in rates.items()]
    table = report.table(["", "million per second"], lines)
    return f"{_described(case)}\n\n{table}"


def workers(case: Case, rounds: int) -> str:
    """Returns the table of the cost and the lost updates of a store's modes."""
    case = dataclasses.replace(case, cores=2)
    names = [(mode, count) for mode in ("exact", "hogwild") for count in ("1", "2")]
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(_open(_OURS, case, "workers", *name))
            for name in names
        }
        for side in sides.values():
            side.ask("make")
        times = process.in_turn(sides, rounds, steps=case.batches)
        lost = {name: side.ask("lost") for name, side in sides.items()}
    lines = [
        [*name, *(f"{x:.1f}" for x in 1e3 * np.median(times[name], axis=0)),
         f"{100 * lost[name]:.3f} %"]
        for name in names
    ]  # fmt: skip
    head = ["mode", "workers", "ms per worker's step", "cpu ms", "updates lost"]
    return (
        f"{_described(case)} SGD by whole numbers, so that weights count updates; "
        "workers are threads, each on all batches, and share the processors."
        f"\n\n{report.table(head, lines)}"
    )


_ALONE = {
    f.__name__: f for f in (ids, features, rows, skew, optimizers, reading, workers)
}


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=7)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument(
        "--tables", nargs="*", choices=["peers", "keras", *_ALONE], default=["peers"]
    )
    parser.add_argument("--cores", nargs="*", type=int, default=[1, 2])
    options.add_fields(parser, Case, but="cores")
    arguments = parser.parse_args()
    case = Case(**options.fields(arguments, Case, but="cores"))
    about = f"{report.machine()}; medians of {arguments.rounds} rounds."
    print(about, flush=True)
    page = "embedding_benchmark.md" if arguments.write else None
    for name in arguments.tables:
        if name in ("peers", "keras"):
            for cores in arguments.cores:
                on = dataclasses.replace(case, cores=cores)
                libraries = (
                    _KERAS if name == "keras" else _sides(arguments.peers, cores)
                )
                part = peers(on, arguments.rounds, libraries)
                report.give(page, f"{name} {cores}", f"{about}\n\n{part}")
        else:
            part = _ALONE[name](case, arguments.rounds)
            report.give(page, name, f"{about}\n\n{part}")
    report.write_json(arguments.json)


def _sides(with_peers: bool, cores: int) -> dict:
    """Returns the sides of the table "peers" beside ours."""
    found = dict(_HERE)
    if with_peers:
        found |= _PEERS | (_ONE_THREAD if cores > 1 else {})
    return found | (_LOOP if cpp_side.COMPILER else {})


if __name__ == "__main__":
    main()
