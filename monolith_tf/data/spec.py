"""The description of the data: files, formats and splits."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated
from typing import Literal
from typing import TypeVar

from monolith_tf import paths
from monolith_tf.data.stream import spec as stream_spec
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.shorthand import OneOrMany
from monolith_tf.types import JsonDict

Split = Literal["train", "eval", "test"]
Format = Literal["auto", "parquet", "csv", "tfrecord", "synthetic"]

Columns = TypeVar("Columns")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NegativesSpec:
    """Rows with items drawn at random, added to each row of the files.

    A row of the files says that a user has interacted with an item: its label is 1. The
    rows drawn for it repeat it with other items, and their label is 0. Items are drawn
    uniformly from those of the train split, until the user has not interacted with the
    item in the train split or in the split that is read. Draws depend only on seed,
    epoch and row: they are new in every epoch, and the same in every evaluation.

    The pairs of users and items are kept in memory, 8 bytes each.

    Attributes:
      train: Rows drawn for each row of the train split. A split with 0 is read as it
        is, with a column `label` in its files.
      eval: Rows drawn for each row of the eval split.
      test: Rows drawn for each row of the test split.
      user: Column of the users.
      item: Column of the items; further columns also belong to the item, and are drawn
        with it.
      label: The column that is made.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    train: int = 0
    eval: int = 0
    test: int = 0
    user: str = "user"
    item: Annotated[tuple[str, ...], OneOrMany()] = ("item",)
    label: str = "label"

    def __post_init__(self) -> None:
        item = (self.item,) if isinstance(self.item, str) else tuple(self.item)
        object.__setattr__(self, "item", item)
        if min(self.train, self.eval, self.test) < 0:
            raise ValueError(
                "`train`, `eval` and `test` must not be negative. Received: "
                f"train={self.train}, eval={self.eval}, test={self.test}."
            )
        names = [self.user, *item, self.label]
        if not item or len(set(names)) < len(names):
            raise ValueError(
                "`user`, `item` and `label` must be different columns. Received: "
                f"user={self.user!r}, item={item}, label={self.label!r}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Files, their format, and how their rows become batches.

    The reading order depends only on seed, epoch and position. With a shuffle buffer,
    files and Parquet row groups are read in an order drawn per epoch, and rows are
    shuffled within windows of `shuffle_buffer` rows.

    Attributes:
      format: Format of the files; `auto` follows their extension: `.parquet`, `.csv`,
        `.tfrecord` or `.tfrecords`, the last three also with `.gz` or `.zst`. CSV files
        are UTF-8; a column gets the type of most of its first cells. `synthetic` needs
        no files: it makes random rows that fit the config.
      train: File or glob patterns of the train split, `**` for any folders; files are
        read in the order of the patterns, and by name within a pattern. Or the URL of a
        Kafka topic, `kafka://HOST:PORT/TOPIC`, which is short for `stream`.
      eval: The same for the split that is evaluated during training.
      test: The same for the split that is scored once, at the end.
      validation_fraction: Share of the train rows, in [0, 1), that is held out as the
        eval split and never trained on; only if `eval` is empty. Which rows these are
        depends on the seed, the order of the files and the rows' numbers in them.
      batch_size: Examples per batch; the last batch of an epoch may have fewer.
      shuffle_buffer: Rows shuffled together, rounded up to a multiple of the batch
        size; 0 reads the train split in file order. Other splits always are.
      on_bad_row: What to do with a row that cannot be read, lacks a value that has no
        default, has a label outside [0, 1] under a log loss, or has a negative or
        infinite weight: raise an `error`, or `skip` and count it. The same holds for
        a CSV file without rows; an empty file of another format is skipped and
        counted, unless all are empty.
      negatives: Rows drawn for each row of the files; None draws none.
      weight: Column of per-example weights, finite and at least 0; None gives every
        example weight 1.
      delimiter: The character between the cells of a CSV row.
      column_names: Names of the columns of CSV files that have no header row.
      null_values: CSV cells that mean a missing value, besides empty ones. A string
        column without a default reads them, and empty cells, as strings.
      list_delimiter: The character between the elements of a list in a CSV cell.
      num_rows: Rows of each split of the `synthetic` format.
      reader: Your own reader in place of `format`, as `module:Name`; see `data.Reader`.
      stream: A Kafka topic in place of the files of the train split.
      input_fn: Your own function in place of files, as `module:name`. It receives a
        split's name and returns one epoch of it, a `tf.data.Dataset` of dicts of
        batched raw columns, the same at every call; see `data.InputFn`.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    format: Format = "auto"
    train: Annotated[tuple[str, ...], OneOrMany()] = ()
    eval: Annotated[tuple[str, ...], OneOrMany()] = ()
    test: Annotated[tuple[str, ...], OneOrMany()] = ()
    validation_fraction: float = 0.0
    batch_size: int = 1024
    shuffle_buffer: int = 100_000
    on_bad_row: Literal["error", "skip"] = "error"
    negatives: NegativesSpec | None = None
    weight: str | None = None
    delimiter: str = ","
    column_names: tuple[str, ...] = ()
    null_values: tuple[str, ...] = ()
    list_delimiter: str = "|"
    num_rows: int = 10_000
    reader: str | None = None
    stream: StreamSpec | None = None
    input_fn: str | None = None

    def __post_init__(self) -> None:
        self._take_url()
        for split in ("train", "eval", "test"):
            object.__setattr__(self, split, _patterns(getattr(self, split)))
            if self.reader is None:  # A user's reader may accept other paths.
                for pattern in self.patterns(split):
                    paths.check(split, pattern)
        for name in ("column_names", "null_values"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_numbers()
        if self.eval and self.validation_fraction:
            raise ValueError(
                "`validation_fraction` holds out train rows in place of `eval` files; "
                f"set only one of them. Received: eval={self.eval}, "
                f"validation_fraction={self.validation_fraction}."
            )
        for name in ("delimiter", "list_delimiter"):
            if len(getattr(self, name)) != 1:
                raise ValueError(
                    f"`{name}` must be one character. "
                    f"Received: {name}={getattr(self, name)!r}."
                )
        for name in ("reader", "input_fn"):
            value = getattr(self, name)
            if value is not None and ":" not in value:
                raise ValueError(
                    f"`{name}` must have the form `module:Name`. "
                    f"Received: {name}={value!r}."
                )
        if self.input_fn is not None and self.negatives is not None:
            raise ValueError(
                "`negatives` are drawn for the rows of files. Received: "
                f"input_fn={self.input_fn!r} too. Draw them in that function."
            )
        if self.input_fn is not None and (
            self.reader or self.train or self.eval or self.test
        ):
            raise ValueError(
                "`input_fn` replaces files and a reader; set only one of them. "
                f"Received: input_fn={self.input_fn!r}, reader={self.reader!r}, "
                f"train={self.train}, eval={self.eval}, test={self.test}."
            )

    def _take_url(self) -> None:
        """Takes a topic's URL in `train` as `stream`, and checks what fits a stream."""
        urls = [url for url in _patterns(self.train) if stream_spec.is_url(url)]
        if urls:
            if len(_patterns(self.train)) > 1 or self.stream is not None:
                raise ValueError(
                    "`train` must be files, or one topic; a topic is either a URL in "
                    f"`train` or `stream`. Received: train={self.train}, "
                    f"stream={self.stream}."
                )
            object.__setattr__(self, "stream", stream_spec.of_url(urls[0]))
            object.__setattr__(self, "train", ())
        if self.stream is None:
            return
        others = {
            "train": self.train,
            "validation_fraction": self.validation_fraction,
            "negatives": self.negatives,
            "reader": self.reader,
            "input_fn": self.input_fn,
        }
        for name, value in others.items():
            if value:
                raise ValueError(
                    f"`stream` replaces the train files, and does not work with "
                    f"`{name}`. Received: {name}={value!r}."
                )

    def _check_numbers(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                "`validation_fraction` must be in [0, 1). "
                f"Received: validation_fraction={self.validation_fraction}."
            )
        if self.batch_size < 1 or self.shuffle_buffer < 0 or self.num_rows < 1:
            raise ValueError(
                "`batch_size` and `num_rows` must be at least 1 and `shuffle_buffer` "
                f"at least 0. Received: batch_size={self.batch_size}, "
                f"num_rows={self.num_rows}, shuffle_buffer={self.shuffle_buffer}."
            )

    def patterns(self, split: Split) -> tuple[str, ...]:
        """Returns the patterns of a split's own files."""
        return {"train": self.train, "eval": self.eval, "test": self.test}[split]

    def file_split(self, split: Split) -> Split:
        """Returns the split whose files hold the rows of a split."""
        return "train" if split == "eval" and self.validation_fraction else split

    def has(self, split: Split) -> bool:
        """Returns whether there is such a split."""
        if self.input_fn is not None or (split == "train" and self.stream is not None):
            return True
        return self.format == "synthetic" or bool(self.patterns(self.file_split(split)))

    def num_negatives(self, split: Split) -> int:
        """Returns how many rows are drawn for each row of a split's files."""
        given = self.negatives or NegativesSpec()
        return {"train": given.train, "eval": given.eval, "test": given.test}[split]

    def pair_columns(self) -> tuple[str, ...]:
        """Returns the columns of users and items for `negatives`."""
        given = self.negatives
        return () if given is None else (given.user, *given.item)

    def in_files(
        self, split: Split, columns: Mapping[str, Columns]
    ) -> dict[str, Columns]:
        """Returns the columns in a split's files, without a label that is made."""
        if self.negatives is None or not self.num_negatives(split):
            return dict(columns)
        return {k: v for k, v in columns.items() if k != self.negatives.label}


# Settings of which rows are read, their order and their use.
_NOT_OF_READING = frozenset(
    {
        "train",
        "eval",
        "test",
        "validation_fraction",
        "batch_size",
        "shuffle_buffer",
        "negatives",
        "weight",
        "num_rows",
        "stream",
        "input_fn",
    }
)


def reading_part(spec: DataSpec) -> JsonDict:
    """Returns the arguments of `DataSpec` that say how any files are read.

    These are the format, the dialect of CSV files, the reader, and how bad rows are
    handled; strings, or tuples of strings.
    """
    found = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.name not in _NOT_OF_READING
    }
    if found["format"] == "synthetic":  # It has no files.
        found["format"] = "auto"
    return found


def _patterns(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Returns patterns as a tuple without empty ones."""
    patterns = (value,) if isinstance(value, str) else tuple(value)
    return tuple(pattern for pattern in patterns if pattern)
