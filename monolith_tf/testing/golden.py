"""Golden cases: values computed once with NumPy and stored as JSON."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping
from monolith_tf.types import Nest


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One case of a golden file.

    Attributes:
      file: Name of the file.
      data: The case, as in the file.
      tolerance: `rtol` and `atol` for float32.
    """

    file: str
    data: JsonMapping
    tolerance: Mapping[str, float]

    @property
    def name(self) -> str:
        """The case's name, unique in its file."""
        return self.data["name"]

    @property
    def config(self) -> JsonDict:
        """Constructor arguments."""
        return dict(self.data.get("config", {}))

    def inputs(self, times: int = 1) -> tuple[tuple[Nest, ...], dict[str, Nest]]:
        """Returns the positional and keyword arguments of the call.

        Args:
          times: Number of repetitions of the batch.
        """
        entry = self.data["inputs"]
        structure, value = entry["structure"], entry["value"]
        dtype = np.dtype(entry.get("dtype", "float32"))

        def tensor(v: Nest) -> Nest:
            return tf.constant(np.concatenate([np.asarray(v, dtype)] * times))

        if structure == "named":
            return (), {key: tf.constant(v, dtype) for key, v in value.items()}
        if structure == "ragged":
            return (tf.ragged.constant(value * times, dtype=tf.int64),), {}
        if structure == "tensor":
            args: tuple[Nest, ...] = (tensor(value),)
        elif structure == "list":
            args = ([tensor(v) for v in value],)
        elif structure == "pair_of_lists":
            args = (tuple([tensor(v) for v in side] for side in value),)
        else:  # "args"
            args = tuple(tensor(v) for v in value)
        call = dict(self.data.get("call") or {})
        if call.get("training") is None:
            call.pop("training", None)
        if "mask" in call:
            call["mask"] = tf.repeat([call["mask"]], times, axis=0)
            call["mask"] = tf.reshape(call["mask"], [-1, call["mask"].shape[-1]])
        return args, call


def load(path: str | pathlib.Path) -> JsonDict:
    """Returns the content of a golden file."""
    return json.loads(pathlib.Path(path).read_text())


def find(beside: str, name: str) -> pathlib.Path:
    """Returns the path of `golden/<name>.json` in the nearest folder above a file.

    Args:
      beside: A test's `__file__`.
      name: Name of the golden file without its extension.

    Raises:
      FileNotFoundError: If there is no such file.
    """
    for folder in pathlib.Path(beside).resolve().parents:
        path = folder / "golden" / f"{name}.json"
        if path.exists():
            return path
    raise FileNotFoundError(f"no `golden/{name}.json` above {beside}.")


def load_golden(beside: str, name: str) -> list[GoldenCase]:
    """Returns all cases of the golden file `name`; see `find`."""
    path = find(beside, name)
    content = load(path)
    return [
        GoldenCase(file=path.stem, data=case, tolerance=content["tolerance"])
        for case in content["cases"]
    ]


def golden_cases(
    beside: str, name: str, only: Callable[[GoldenCase], bool] = lambda case: True
) -> Any:
    """Returns a decorator that runs a test method with every case of a file.

    Args:
      beside: The test's `__file__`.
      name: Name of the golden file without its extension.
      only: Selects cases; all of them by default.
    """
    cases = [case for case in load_golden(beside, name) if only(case)]
    return parameterized.named_parameters(*[(case.name, case) for case in cases])


def compare(
    test: tf.test.TestCase, found: Nest, expected: Nest, tolerance: Mapping[str, float]
) -> None:
    """Compares nests of dicts, lists, numbers and strings."""
    if isinstance(expected, Mapping):
        test.assertSameElements(found, expected)
        for key, value in expected.items():
            compare(test, found[key], value, tolerance)
    elif isinstance(expected, (str, bool)) or expected is None:
        test.assertEqual(found, expected)
    else:
        test.assertAllClose(found, expected, **tolerance)
