"""The places of many variables in one vector of float32 numbers.

Numbers of other types are there as their bits. Each variable begins at a multiple of
64 bytes, so TensorFlow can cut the vector without a copy.
"""

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

WORD_BYTES = 4
_ALIGNED_WORDS = 16


class Place(NamedTuple):
    """Where a variable is.

    Attributes:
      offset: Its first number in the vector.
      shape: Its shape.
      dtype: Its type, by TensorFlow's name.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many values the variable has."""
        return math.prod(self.shape)

    @property
    def words(self) -> int:
        """How many numbers of the vector it takes."""
        return -(-self.size * _type(self.dtype).itemsize // WORD_BYTES)

    @property
    def room(self) -> int:
        """Numbers of the vector up to where the next variable may begin."""
        return -(-self.words // _ALIGNED_WORDS) * _ALIGNED_WORDS


@dataclasses.dataclass(frozen=True)
class FlatLayout:
    """The places of variables in a vector.

    Attributes:
      places: Path -> place, in the order of the vector.
      size: Length of the vector.
    """

    places: Mapping[str, Place]
    size: int

    @classmethod
    def of(cls, kinds: Mapping[str, tuple[Sequence[int], str]]) -> "FlatLayout":
        """Lays out variables: path -> shape and type; float32 ones come first."""
        places, offset = {}, 0
        for path in sorted(kinds, key=lambda path: kinds[path][1] != "float32"):
            shape, dtype = kinds[path]
            place = Place(offset, tuple(map(int, shape)), dtype)
            places[path] = place
            offset += place.room
        return cls(places, offset)

    @classmethod
    def from_json(cls, content: JsonMapping) -> "FlatLayout":
        """Returns the layout that `to_json` wrote."""
        places = {
            path: Place(int(p["offset"]), tuple(p["shape"]), str(p["dtype"]))
            for path, p in content["variables"].items()
        }
        return cls(places, int(content["size"]))

    def to_json(self) -> JsonDict:
        """Returns plain data: `size`; `variables`, path -> offset, shape, dtype."""
        return {
            "size": self.size,
            "variables": {
                path: {
                    "offset": place.offset,
                    "shape": list(place.shape),
                    "dtype": place.dtype,
                }
                for path, place in self.places.items()
            },
        }

    def filled(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the vector, `[size]`, float32.

        Args:
          values: Path -> value, for all paths; others are ignored.

        Raises:
          ValueError: If a value is missing, or has another shape or type.
        """
        flat = np.zeros([self.size], np.float32)
        raw = flat.view(np.uint8)
        for path, place in self.places.items():
            if path not in values:
                raise ValueError(
                    f"The served model has the dense variable `{path}`, which the job "
                    "lacks. Export the job again: `monolith-tf export CONFIG`."
                )
            value = np.asarray(values[path])
            if value.shape != place.shape or value.dtype != _type(place.dtype):
                raise ValueError(
                    f"The dense variable `{path}` has the shape {list(value.shape)} "
                    f"and type {value.dtype} in the job, but {list(place.shape)} and "
                    f"{place.dtype} in the served model. Export the job again: "
                    "`monolith-tf export CONFIG`."
                )
            start = place.offset * WORD_BYTES
            raw[start : start + value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
        return flat

    def values(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Returns path -> value of a vector: the inverse of `filled`."""
        raw = np.ascontiguousarray(flat, np.float32).view(np.uint8)
        found = {}
        for path, place in self.places.items():
            kind, start = _type(place.dtype), place.offset * WORD_BYTES
            piece = raw[start : start + place.size * kind.itemsize]
            found[path] = np.frombuffer(piece.tobytes(), kind).reshape(place.shape)
        return found


def _type(name: str) -> np.dtype:
    return np.dtype(tf.as_dtype(name).as_numpy_dtype)
