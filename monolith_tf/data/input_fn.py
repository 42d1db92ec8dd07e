"""A user's `tf.data.Dataset` in place of files and a reader."""

import functools
from collections.abc import Callable
from collections.abc import Collection

import numpy as np
import tensorflow as tf

from monolith_tf.data import file_marks
from monolith_tf.data.batch_source import UNKNOWN_FILES
from monolith_tf.data.batch_source import RowPlace
from monolith_tf.data.batch_source import RowRange
from monolith_tf.data.rows import Filled
from monolith_tf.data.spec import Split
from monolith_tf.data.windows import Cut
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType
from monolith_tf.types import JsonDict
from monolith_tf.types import Tensor


class InputFn:
    """One split of the data, from a user's function.

    The function receives the split's name and returns one epoch: a dataset whose
    elements are batches, dicts of raw columns, `[batch]` or ragged. It must return the
    same batches at every call, or a resumed job does not continue where it stopped. To
    resume, the job skips batches, which reads them.

    Attributes:
      failure: The error that ended a dataset's iteration, if raised here.
    """

    def __init__(
        self,
        make: Callable[[str], tf.data.Dataset],
        split: Split,
        probabilities: Collection[str] = (),
        weight: str | None = None,
    ) -> None:
        """Makes it.

        Args:
          make: The function.
          split: Which split.
          probabilities: Columns of labels that must be from 0 to 1; others are an
            error, since a row cannot be skipped.
          weight: Column of weights; a negative or infinite weight or NaN is an error.
        """
        self._make = make
        self._split = split
        self._probabilities = tuple(probabilities)
        self._weight = weight
        self.failure: Exception | None = None
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

    @property
    def marks(self) -> file_marks.Marks:
        """Nothing: only the function knows its files."""
        return ()

    def identity(self, batch_size: int | None = None) -> JsonDict:
        """Returns nothing: only the function knows its data."""
        del batch_size
        return {}

    def files_digest(self) -> int:
        """Returns `UNKNOWN_FILES`: only the function knows its files."""
        return UNKNOWN_FILES

    def batches_per_epoch(self) -> int | None:
        """Returns the batches of one epoch, or None if the dataset does not know."""
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
        cut: Cut | None = None,
    ) -> tf.data.Dataset:
        """Returns the batches from a position on; arguments as for `Source.dataset`.

        The keyword arguments have no effect, since the function decides these. If the
        batches of an epoch are not known, `batch_start` may include those of earlier
        epochs.
        """
        del epoch_start, batch_size, shuffle, string_codes, cut
        made = self._make(self._split).repeat(num_epochs).skip(batch_start)
        self.failure = None
        if self._probabilities or self._weight:
            made = made.enumerate(batch_start).map(self._checked)
        return made.prefetch(2)

    @property
    def filled(self) -> Filled:
        """Always empty; see `counts`."""
        return {}

    def counts(self) -> dict[str, int]:
        """Returns nothing: no row is skipped or filled here."""
        return {}

    def _checked(self, batch: Tensor, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns a batch; raises if a label is not in [0, 1], or a weight is bad."""
        columns = dict(columns)
        checks = [(name, self._check_label) for name in self._probabilities]
        if self._weight is not None:
            checks.append((self._weight, self._check_weight))
        for name, check in checks:
            if name in columns:
                values = columns[name]
                checked = tf.numpy_function(
                    functools.partial(check, name), [batch, values], values.dtype
                )
                columns[name] = tf.ensure_shape(checked, values.shape)
        return columns

    def _check_weight(
        self, name: str, batch: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        wrong = np.flatnonzero(~((values >= 0) & (values < np.inf)))
        if len(wrong):
            row = int(wrong[0])
            self.failure = ValueError(
                f"`data.input_fn`, split `{self._split}`, batch {batch}, row {row}: "
                f"column `{name}`: the weight {values.reshape(-1)[row]:g} is not a "
                "finite number of at least 0. Give such a row another weight, or leave "
                "it out."
            )
            raise self.failure
        return values

    def _check_label(
        self, name: str, batch: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        outside = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if len(outside):
            row = int(outside[0])
            self.failure = ValueError(
                f"`data.input_fn`, split `{self._split}`, batch {batch}, row {row}: "
                f"column `{name}`: the label {values.reshape(-1)[row]:g} is not "
                "between 0 and 1, as a log loss needs. Set `equals` of the label to "
                "the value that means 1, or use another loss."
            )
            raise self.failure
        return values

    def locate(
        self, epoch: int, batch: int, *, cut: Cut | None = None
    ) -> list[RowRange]:
        """Returns nothing: only the function knows where its rows come from."""
        del epoch, batch, cut
        return []

    def row_place(
        self, epoch: int, batch: int, row: int, *, cut: Cut | None = None
    ) -> RowPlace:
        """Returns a row's batch and its place in it; arguments as for `BatchSource`."""
        del cut
        where = f"`data.input_fn`, batch {batch} of epoch {epoch}, row {row}"
        return RowPlace("", where)

    def is_unsigned(self, file: str, column: str) -> bool:
        """Returns False: the function's integers are passed on as they are."""
        del file, column
        return False


def _dtype(dtype: tf.DType) -> DType:
    if dtype.is_integer:
        return "int64"
    return "string" if dtype == tf.string else "float32"
