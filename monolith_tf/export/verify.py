"""Compares an export's answers with the network's."""

from collections.abc import Mapping

import numpy as np

from monolith_tf.export.errors import ExportError

RTOL = 1e-5
ATOL = 1e-6


def compare(
    signature: str,
    answers: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> None:
    """Checks that a signature's answers equal the network's.

    Args:
      signature: Its key.
      answers: Output -> value.
      expected: The network's, for all outputs or some.

    Raises:
      ExportError: If a number differs by more than 1e-5 of its value plus 1e-6, or
        anything else differs.
    """
    for name, wanted in expected.items():
        value = answers[name]
        if value.shape != wanted.shape:
            raise ExportError(
                f"The answer of signature `{signature}` differs from the model's; "
                f"nothing was published. Output `{name}` has shape "
                f"{list(value.shape)}, not {list(wanted.shape)}."
            )
        if wanted.dtype.kind == "f":
            is_near = np.abs(value - wanted) <= RTOL * np.abs(wanted) + ATOL
        else:
            is_near = np.asarray(value == wanted)
        if not is_near.all():
            row = int(np.argmin(is_near.reshape(len(is_near), -1).all(axis=1)))
            raise ExportError(
                f"The answer of signature `{signature}` differs from the model's; "
                f"nothing was published. Output `{name}`, row {row} of the sample: "
                f"{value[row]} against {wanted[row]}."
            )


def largest_difference(
    answers: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> float:
    """Returns the largest absolute difference between numbers of equal name."""
    differences = [
        np.abs(np.subtract(value, others[name])).max(initial=0.0)
        for name, value in answers.items()
        if value.dtype.kind == "f"
    ]
    return float(max(differences, default=0.0))
