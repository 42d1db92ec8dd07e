"""Lets each worker read its own batches in functions that the chief traced.

The chief assigns batches to workers. Reading needs Python, and a Python function exists
only in the process that made it. So each worker first makes a Python function, the
feeder, and publishes its token. A function traced by the chief calls the Python
function with this token, in the process where it runs. A second Python function returns
the worker's counts of the data.
"""

import dataclasses
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from monolith_tf.data import pipeline
from monolith_tf.data.batch_source import UNKNOWN_FILES
from monolith_tf.data.rows import Filled
from monolith_tf.data.source import Source
from monolith_tf.data.spec import Split
from monolith_tf.data.stream.span_feed import SpanFeeder
from monolith_tf.data.windows import Cut
from monolith_tf.data.windows import Window
from monolith_tf.features.columns import ColumnType
from monolith_tf.types import Tensor

_SPLITS: tuple[Split, ...] = ("train", "eval", "test")
_ENDLESS = 1 << 62
_NOWHERE = (-1, -1, None)  # Epoch, window, and how the epoch is cut.


@dataclasses.dataclass(frozen=True)
class Feed:
    """The chief's description of its workers' feeders.

    Attributes:
      tokens: TensorFlow's names of the feeder's functions in every worker: the two for
        files come first.
      columns: The columns that it returns.
      batch_size: Rows per batch.
      filled: Split -> numbers of rows that got a default, as received by `hear`.
      files: Split -> `Source.files_digest` of the chief's files. Workers must have the
        same files; without an entry they are not compared.
    """

    tokens: tuple[str, ...]
    columns: Mapping[str, ColumnType]
    batch_size: int
    filled: dict[Split, Filled] = dataclasses.field(default_factory=dict, init=False)
    files: dict[Split, int] = dataclasses.field(default_factory=dict, init=False)

    def dataset(
        self,
        split: Split,
        epoch: Tensor,
        begin: Tensor,
        end: Tensor,
        cut: Tensor | None = None,
    ) -> tf.data.Dataset:
        """Returns batches `begin` to `end` of an epoch, like `Source.dataset`.

        Call it inside a function that runs on a worker.

        Args:
          split: Which split; only the train split is shuffled.
          epoch: The epoch.
          begin: First batch in it.
          end: The batch after the last one.
          cut: How the epoch is cut into batches, `Cut.to_numbers` [3]; None for the
            default cut.
        """
        specs = pipeline.signature(self.columns)
        number = tf.constant(_SPLITS.index(split), tf.int64)
        files = tf.constant(self.files.get(split, UNKNOWN_FILES), tf.int64)
        if cut is None:
            cut = tf.constant(Cut().to_numbers(), tf.int64)

        def piece(index: Tensor) -> tuple[Tensor, ...]:
            arrays = tf.raw_ops.PyFunc(
                input=[number, files, epoch, begin, end, cut, index],
                token=self.tokens[0],
                Tout=[spec.dtype for spec in specs],
            )
            for array, spec in zip(arrays, specs, strict=True):
                array.set_shape(spec.shape)
            return tuple(arrays)

        pieces = tf.data.Dataset.range(_ENDLESS).map(piece)
        flat = pieces.take_while(lambda num_rows, *_: num_rows > 0)
        return pipeline.batches(flat, self.columns, self.batch_size, string_codes=True)

    def news(self, split: Split) -> Tensor:
        """Returns a worker's new counts of a split, for `hear`.

        Call it inside a function that runs on a worker, after it has read.
        """
        number = tf.constant(_SPLITS.index(split), tf.int64)
        (news,) = tf.raw_ops.PyFunc(
            input=[number], token=self.tokens[1], Tout=[tf.int64]
        )
        return tf.ensure_shape(news, [None, 2 + len(_with_default(self.columns))])

    def hear(self, split: Split, news: np.ndarray) -> None:
        """Adds the counts of `news`; counts a block once, even if read repeatedly."""
        names = _with_default(self.columns)
        filled = self.filled.setdefault(split, {})
        for piece, place, *numbers in np.asarray(news).tolist():
            filled[piece, place] = dict(zip(names, numbers, strict=True))


class Feeder:
    """Reads, in a worker, the batches that functions of the chief request.

    Attributes:
      tokens: TensorFlow's names of its functions in this process: the one that returns
        rows of files, and the one that returns counts; then those of `spans`.
      examples: Rows returned so far.
      failure: The first read error, or empty; TensorFlow's message to the chief
        contains it.
    """

    def __init__(
        self,
        open_split: Callable[[Split], Source],
        columns: Mapping[str, ColumnType],
        batch_size: int,
        spans: SpanFeeder | None = None,
    ) -> None:
        """Makes the feeder; it must be the first Python function of its process.

        Args:
          open_split: Opens a split of the data.
          columns: The columns to return.
          batch_size: Rows per batch.
          spans: Reads the spans of a topic, if there is one.
        """
        self._open_split = open_split
        self._columns = dict(columns)
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._cursors: dict[int, _Cursor] = {}
        self._said: set[tuple[int, int, int]] = set()  # Split, piece, place.
        self.examples = 0
        self.failure = ""
        self._graph = tf.Graph()  # Keeps the function alive.
        with self._graph.as_default():
            made = tf.numpy_function(
                self._give,
                [tf.constant(0, tf.int64)] * 7,
                [spec.dtype for spec in pipeline.signature(self._columns)],
                stateful=True,
            )
            news = tf.numpy_function(
                self._news, [tf.constant(0, tf.int64)], tf.int64, stateful=True
            )
            self.tokens: tuple[str, ...] = (_token(made[0]), _token(news))
            if spans is not None:
                self.tokens += self._tokens_of(spans)

    def _tokens_of(self, spans: SpanFeeder) -> tuple[str, str]:
        """Makes the functions of a topic's spans."""

        @tf.autograph.experimental.do_not_convert
        def give(*arguments: np.ndarray) -> tuple[np.ndarray | np.generic, ...]:
            try:
                number, num_rows, first, *arrays = spans.give(*arguments)
            except Exception as error:
                self.failure = self.failure or str(error)
                raise
            begin = int(first) * self._batch_size
            self.examples += max(int(num_rows) - begin, 0)
            return number, num_rows, first, *arrays

        numbers = [tf.constant(0, tf.int64)] * 3
        made = tf.numpy_function(give, numbers, spans.output_types, stateful=True)
        news = tf.numpy_function(spans.news, numbers[:2], [tf.int64] * 3, stateful=True)
        return _token(made[0]), _token(news[0])

    @tf.autograph.experimental.do_not_convert
    def _give(
        self,
        split: np.ndarray,
        files: np.ndarray,
        epoch: np.ndarray,
        begin: np.ndarray,
        end: np.ndarray,
        cut: np.ndarray,
        index: np.ndarray,
    ) -> pipeline.Flat:
        with self._lock:
            try:
                window = self._cursor(int(split), int(files)).piece(
                    int(epoch),
                    int(begin),
                    int(end),
                    Cut.from_numbers(cut.tolist()),
                    int(index),
                )
            except Exception as error:
                self.failure = self.failure or str(error)
                raise
            self.examples += len(window.rows)
        return pipeline.flatten(window, 0, self._columns)

    @tf.autograph.experimental.do_not_convert
    def _news(self, split: np.ndarray) -> np.ndarray:
        number = int(split)
        names = _with_default(self._columns)
        with self._lock:
            cursor = self._cursors.get(number)
            filled = {} if cursor is None else cursor.filled
            news = {k: v for k, v in filled.items() if (number, *k) not in self._said}
            self._said.update((number, *key) for key in news)
        lines = [
            [*key, *(block.get(n, 0) for n in names)] for key, block in news.items()
        ]
        return np.array(lines, np.int64).reshape(len(lines), 2 + len(names))

    def _cursor(self, split: int, files: int) -> "_Cursor":
        """Returns the cursor of a split, with the same files as the chief's."""
        cursor = self._cursors.get(split)
        if cursor is None or files not in (UNKNOWN_FILES, cursor.files):
            # The first call, or the chief started again with other files.
            source = self._open_split(_SPLITS[split])
            cursor = self._cursors[split] = _Cursor(source, self._batch_size)
        if files not in (UNKNOWN_FILES, cursor.files):
            raise ValueError(
                f"The files of `data.{_SPLITS[split]}` differ here from those that the "
                "chief began to read, in name or content. All tasks must read the same "
                "files, and these must not change until the job ends."
            )
        return cursor


class _Cursor:
    """Keeps its position in one split, so that adjacent calls share a window.

    Attributes:
      files: `Source.files_digest` of its files.
    """

    def __init__(self, source: Source, batch_size: int) -> None:
        self._source = source
        self._batch_size = batch_size
        self.files = source.files_digest()
        self._window_batches = source.window_batches(batch_size)
        self._place: tuple[int, int, Cut | None] = _NOWHERE
        self._window: Window | None = None
        self._rest: Iterator[tuple[Window, int]] = iter(())

    @property
    def filled(self) -> Filled:
        """Numbers of rows read so far that got a default."""
        return self._source.filled

    def piece(self, epoch: int, begin: int, end: int, cut: Cut, index: int) -> Window:
        """Returns the rows of batches `begin` to `end` that are in one window.

        Args:
          epoch: The epoch.
          begin: First batch.
          end: The batch after the last one.
          cut: How the epoch is cut into batches.
          index: Number of the window, from 0, among those with any of these batches;
            one past the last returns no rows.
        """
        moved, shift = divmod(cut.shift, self._batch_size)
        begin, end, cut = begin + moved, end + moved, Cut(shift, cut.order)
        number = begin // self._window_batches + index
        first = number * self._window_batches
        begin, end = max(begin - first, 0), min(end - first, self._window_batches)
        if begin >= end:
            return _slice(self._loaded(), 0, 0)
        window = self._at(epoch, number, cut)
        rows = slice(begin * self._batch_size, end * self._batch_size)
        return _slice(window, rows.start, rows.stop)

    def _at(self, epoch: int, number: int, cut: Cut) -> Window:
        if self._place != (epoch, number, cut):
            if self._place != (epoch, number - 1, cut):
                self._rest = self._source.windows(
                    epoch,
                    number * self._window_batches,
                    batch_size=self._batch_size,
                    cut=cut,
                )
            self._place = _NOWHERE  # Until it is read.
            found = next(self._rest, None)
            if found is None:
                raise ValueError(
                    f"The data has no window {number} here, but the chief counted more "
                    "rows. All tasks must read the same files."
                )
            self._window, self._place = found[0], (epoch, number, cut)
        return self._loaded()

    def _loaded(self) -> Window:
        if self._window is None:
            raise ValueError("`index` must be 0 in the first call.")
        return self._window


def _token(output: Tensor) -> str:
    token: bytes = output.op.get_attr("token")
    return token.decode()


def _with_default(columns: Mapping[str, ColumnType]) -> list[str]:
    return [name for name, type_ in columns.items() if type_.default is not None]


def _slice(window: Window, begin: int, end: int) -> Window:
    return Window(
        window.index,
        window.table.slice(begin, end - begin),
        window.files[begin:end],
        window.rows[begin:end],
    )
