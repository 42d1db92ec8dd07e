"""CIN and SeNet with JAX on a GPU that XLA supports and TensorFlow does not.

    scripts/bench fused_gpu write FOLDER [--batch 4096]   # with TensorFlow
    python scripts/benchmarks/fused_gpu.py run FOLDER     # with JAX 0.10

The first writes training steps of the plain and the fused form as StableHLO, with
inputs and NumPy's answers. The second compiles them for the device that JAX finds,
prints their differences from the answers, and times them in turn. Forward and backward
of the fused form are one program there, as in a model compiled as a whole.
"""

import argparse
import pathlib
import time

import numpy as np
from fused_sides.case import Case

SIDES = ("plain", "fused")
TOLERANCE = 5e-3  # of the norm; GPUs may round factors of matrix products to TF32


def cases(batch: int) -> list[Case]:
    """Returns the cases of `--size bars`."""
    found = [Case("cin", batch, 26, 16, (128,) * n, "relu") for n in (2, 3)]
    return [*found, Case("senet", batch, 26, 16)]


def write(folder: pathlib.Path, batch: int) -> None:
    """Writes `<case>.npz` and `<case>.<side>.mlir` for every case."""
    from fused_sides import answers
    from fused_sides import side

    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases(batch)):
        x, weights, upstream = side.draw(case)
        for name in SIDES:
            _, training = side.functions(name, case, jit_compile=True)
            get_ir = training.experimental_get_compiler_ir(x, weights, upstream)
            text = get_ir(stage="stablehlo")
            (folder / f"{number}.{name}.mlir").write_text(text, encoding="utf-8")
        arrays = [a.numpy() for a in (x, *weights, upstream)]
        expected = answers.training(case, arrays[0], arrays[1:-1], arrays[-1])
        named = {f"input_{i:02}": a for i, a in enumerate(arrays)}
        named |= {f"output_{i:02}": np.float32(a) for i, a in enumerate(expected)}
        np.savez(folder / f"{number}.npz", case=str(case), **named)


def run(folder: pathlib.Path, rounds: int) -> None:
    """Checks and times the programs that `write` wrote."""
    import jax
    from jax.extend import backend

    device = jax.devices()[0]
    print(f"{device.device_kind}, JAX {jax.__version__}; medians of {rounds} rounds")
    for path in sorted(folder.glob("*.npz")):
        arrays = np.load(path)
        inputs, expected = (
            [arrays[name] for name in sorted(arrays) if name.startswith(kind)]
            for kind in ("input", "output")
        )
        inputs = [jax.device_put(a, device) for a in inputs]
        programs, seconds = {}, {}
        for name in SIDES:
            text = path.with_suffix(f".{name}.mlir").read_text(encoding="utf-8")
            programs[name] = backend.get_backend().compile_and_load(text, [device])
            outputs = programs[name].execute(inputs)
            differences = [
                np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)
                for a, b in zip(outputs, expected, strict=True)
            ]
            print(f"{arrays['case']}: {name} differs by {max(differences):.1e}")
            if not max(differences) < TOLERANCE:
                raise ValueError(f"{name} differs by more than {TOLERANCE}.")
            seconds[name] = []
        for _ in range(rounds):
            for name, program in programs.items():
                begin = time.perf_counter()
                jax.block_until_ready(program.execute(inputs))
                seconds[name].append(time.perf_counter() - begin)
        plain, fused = (1e3 * np.median(seconds[name]) for name in SIDES)
        print(f"  plain {plain:.3f} ms, fused {fused:.3f} ms: {plain / fused:.2f}")


def main() -> None:
    """Runs one of the two halves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("half", choices=["write", "run"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.half == "write":
        write(arguments.folder, arguments.batch)
    else:
        run(arguments.folder, arguments.rounds)


if __name__ == "__main__":
    main()
