"""A user's own `tf.data.Dataset` in place of files and a reader."""

from collections.abc import Callable

import tensorflow as tf

from monolith_tf.data.source import RowRange
from monolith_tf.data.spec import Split
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType


class InputFn:
    """One split of the data as a user's function gives it; the face of a `Source`.

    The function is called with the split's name and returns one epoch: a dataset whose
    elements are batches, dicts of raw columns, `[batch]` or ragged. It must give the
    same batches at every call, or a resumed job will not see what it would have seen.
    The position is found again by skipping, which reads what is skipped.

    Attributes:
      failure: Always None: there is no reader to fail.
    """

    failure: Exception | None = None

    def __init__(self, make: Callable[[str], tf.data.Dataset], split: Split) -> None:
        self._make = make
        self._split = split
        dataset = make(split)
        if not (
            isinstance(dataset, tf.data.Dataset)
            and isinstance(dataset.element_spec, dict)
        ):
            raise ValueError(
                "`data.input_fn` must return a tf.data.Dataset of dicts of batched "
                f"columns. Received: {dataset} for the split `{split}`."
            )
        self.element_spec = dataset.element_spec
        count = int(dataset.cardinality())
        self._batches = count if count >= 0 else None

    def schema(self) -> dict[str, ColumnType]:
        """Returns the type of every column."""
        return {
            name: ColumnType(
                dtype=_dtype(spec.dtype), is_list=isinstance(spec, tf.RaggedTensorSpec)
            )
            for name, spec in self.element_spec.items()
        }

    def num_rows(self) -> int | None:
        """Returns None: batches may differ in size."""
        return None

    def batches_per_epoch(self) -> int | None:
        """Returns the batches of one epoch, or None where the dataset cannot tell."""
        return self._batches

    def dataset(
        self,
        epoch_start: int = 0,
        batch_start: int = 0,
        num_epochs: int | None = 1,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        string_codes: bool = False,
    ) -> tf.data.Dataset:
        """Returns the batches from a position on; arguments as `Source.dataset`.

        The keyword arguments have no effect: these are the function's own. Where
        the batches of an epoch are not known, `batch_start` may count those of earlier
        epochs too.
        """
        del epoch_start, batch_size, shuffle, string_codes
        return self._make(self._split).repeat(num_epochs).skip(batch_start).prefetch(2)

    def locate(self, epoch: int, batch: int) -> list[RowRange]:
        """Returns nothing: only the function knows where its rows come from."""
        del epoch, batch
        return []


def _dtype(dtype: tf.DType) -> DType:
    if dtype.is_integer:
        return "int64"
    return "string" if dtype == tf.string else "float32"
