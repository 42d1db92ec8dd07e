"""Makes the reader that a config names, and reads the columns of its files."""

from collections.abc import Mapping

from monolith_tf import imports
from monolith_tf.data import arrow_types
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import check_names_files
from monolith_tf.data.reader import first_with_rows
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import Format
from monolith_tf.data.spec import Split
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import check_exists

_READERS = {
    "parquet": "monolith_tf.data.parquet:ParquetReader",
    "csv": "monolith_tf.data.csv:CsvReader",
    "tfrecord": "monolith_tf.data.tfrecord:TFRecordReader",
    "synthetic": "monolith_tf.data.synthetic:SyntheticReader",
}
_ENDINGS: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}


def make_reader(spec: DataSpec, split: Split) -> Reader:
    """Returns the reader for a split.

    Raises:
      ValueError: If the format is `auto` and the config names no files, or their names
        do not show it; or if there is no such reader.
    """
    if spec.reader is not None:
        return _load(spec.reader)(spec)
    name: Format | None = spec.format
    if name == "auto":
        patterns = spec.patterns(spec.file_split(split))
        check_names_files(split, patterns)
        endings = {format_of(pattern) for pattern in patterns}
        if len(endings) != 1 or None in endings:
            raise ValueError(
                f"`data.format` is auto, and the names of the {split} files do not "
                f"show the format. Received: {', '.join(patterns)}. Set "
                "`data.format` to parquet, csv or tfrecord."
            )
        (name,) = endings
    return _load(_READERS[name or ""])(spec)


def read_schema(spec: DataSpec, split: Split = "train") -> dict[str, ColumnType]:
    """Returns the type of every column of the split's first file that has rows.

    It does not need TensorFlow. For CSV and TFRecord files, types are guessed from the
    first rows. Synthetic data has any column, so its schema is empty.
    """
    reader = make_reader(spec, split)
    file = _first_file(reader, spec, split)
    if reader.guesses_types and not reader.has_rows(file):
        raise ValueError(
            f"{file}: has no rows, and no file of `data.{split}` has any, to tell what "
            "the columns hold."
        )
    schema = reader.schema(file)
    if spec.negatives is None or not spec.num_negatives(split) or not schema:
        return schema
    label = spec.negatives.label
    if label in schema:
        raise ValueError(
            f"`data.negatives` makes the column `{label}`, which {file} already has. "
            "Use files with only rows of label 1 and without it, or another name."
        )
    return schema | {label: ColumnType(dtype="int64")}


def check_columns(
    spec: DataSpec, columns: Mapping[str, ColumnType], split: Split = "train"
) -> None:
    """Raises ValueError if the split's first file with rows lacks the columns."""
    reader = make_reader(spec, split)
    file = _first_file(reader, spec, split)
    check_file(reader, file, spec.in_files(split, columns))


def format_of(pattern: str) -> Format | None:
    """Returns the format of a file name or pattern by its extension, or None."""
    name = pattern.lower()
    for ending in (".gz", ".zst"):
        name = name.removesuffix(ending)
    return next((f for ending, f in _ENDINGS.items() if name.endswith(ending)), None)


def check_file(reader: Reader, file: str, columns: Mapping[str, ColumnType]) -> None:
    """Raises ValueError if a file lacks a column or has it with another type."""
    schema = reader.schema(file)
    if not schema:
        return
    for name, wanted in columns.items():
        check_exists(name, schema, f"`data` ({file})")
        found = schema[name]
        if reader.guesses_types or (
            found.is_list == wanted.is_list
            and (wanted.length is None or found.length in (None, wanted.length))
            and arrow_types.fits(found.dtype, wanted.dtype)
        ):
            continue
        raise ValueError(
            f"{file}: column `{name}` holds {_describe(found)} and cannot be read as "
            f"{_describe(wanted)}. Change `dtype`, `kind` or `dim` where it is used."
        )


def _first_file(reader: Reader, spec: DataSpec, split: Split) -> str:
    """Returns the file whose columns represent those of a split's files."""
    in_files = spec.file_split(split)
    return first_with_rows(reader, in_files, reader.files(in_files))


def _describe(type_: ColumnType) -> str:
    if not type_.is_list:
        return type_.dtype
    length = "" if type_.length is None else f"{type_.length} "
    return f"lists of {length}{type_.dtype}"


def _load(path: str) -> type[Reader]:
    """Imports a reader class."""
    found = imports.load_name(path, "data.reader")
    if not (isinstance(found, type) and issubclass(found, Reader)):
        raise ValueError(
            f"`data.reader`: {path!r} is not a class derived from `data.Reader`."
        )
    return found
