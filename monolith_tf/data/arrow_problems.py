"""Finds rows with values that cannot be used, and says why."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from monolith_tf.data import arrow_arrays
from monolith_tf.data import arrow_types

Problem = tuple[np.ndarray, Callable[[int], str]]
"""Which rows are bad, bool [rows], and a function from a row's place to the reason."""


def always(bad: np.ndarray | None, reason: str) -> list[Problem]:
    """Returns the problem of bad rows, if any, all with the same reason."""
    return [] if bad is None else [(bad, lambda place: reason)]


def not_text(name: str, array: pa.Array) -> list[Problem]:
    """Returns the problem of strings, or lists of strings, that are not UTF-8, if any.

    Columns of Arrow's type binary may hold any bytes.
    """
    values = arrow_arrays.flat(array)
    is_coded = pa.types.is_dictionary(values.type)
    words = values.dictionary if is_coded else values
    if not arrow_types.is_text(words.type):
        return []
    try:
        words.validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return []
    values = arrow_arrays.strings(values)
    reasons = {}
    for code, word in enumerate(values.dictionary.to_pylist()):
        try:
            word.decode()
        except UnicodeDecodeError:
            reasons[code] = (
                f"column `{name}`: {word!r} is not UTF-8 text, as the column's type "
                "string needs; the type binary takes any bytes"
            )
    codes = values.indices.fill_null(-1).to_numpy()
    places = np.flatnonzero(np.isin(codes, list(reasons)))
    owners = arrow_arrays.owners(array)[places].tolist()
    of_rows = {
        owner: reasons[code]
        for owner, code in zip(owners, codes[places].tolist(), strict=True)
    }
    bad = np.zeros(len(array), bool)
    bad[owners] = True
    return [(bad, lambda place: of_rows[place])] if owners else []


def improbable(name: str, array: pa.Array, bad: np.ndarray | None) -> list[Problem]:
    """Returns the problem of clean labels that must be from 0 to 1, if any."""
    values = arrow_arrays.to_numpy(array)
    outside = ~((values >= 0) & (values <= 1))
    if bad is not None:
        outside &= ~bad
    if not outside.any():
        return []

    def reason(place: int) -> str:
        return (
            f"column `{name}`: the label {values[place]:g} is not between 0 and 1, as "
            "a log loss needs; set `equals` of the label to the value that means 1, or "
            "use another loss"
        )

    return [(outside, reason)]


def unweighable(name: str, array: pa.Array) -> list[Problem]:
    """Returns the problem of clean weights, if any is negative or infinite."""
    values = arrow_arrays.to_numpy(array)
    wrong = ~((values >= 0) & (values < np.inf))
    if not wrong.any():
        return []

    def reason(place: int) -> str:
        return (
            f"column `{name}`: the weight {values[place]:g} is not a finite number of "
            "at least 0"
        )

    return [(wrong, reason)]


def infinite(name: str, array: pa.Array, refused: tuple[float, ...]) -> list[Problem]:
    """Returns what is bad about clean numbers, or lists of them, if any is refused."""
    values = arrow_arrays.to_numpy(arrow_arrays.flat(array))
    places = np.flatnonzero(np.isinf(values))
    places = places[np.isin(values[places], refused)]
    if not len(places):
        return []
    owners = arrow_arrays.owners(array)[places]
    of_rows = dict(zip(owners.tolist(), values[places].tolist(), strict=True))
    bad = np.zeros(len(array), bool)
    bad[owners] = True

    def reason(place: int) -> str:
        return (
            f"column `{name}`: {of_rows[place]:g}, as float32, has no distance to the "
            "mean that `zscore` takes; put `clip` before it"
        )

    return [(bad, reason)]
