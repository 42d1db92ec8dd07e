"""Finds the export that a user names, and how to read the files of its job."""

import dataclasses
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import pydantic

from monolith_tf import config as config_lib
from monolith_tf.cli import errors
from monolith_tf.cli import saved_model
from monolith_tf.config import document
from monolith_tf.config import overrides as overrides_lib
from monolith_tf.data import spec as data_spec
from monolith_tf.data.spec import DataSpec
from monolith_tf.export import metadata
from monolith_tf.export.errors import ExportError
from monolith_tf.features.columns import ColumnType
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

# Cells that `predict` of 0.1.0 read as a missing number.
_NULLS_OF_0_1_0 = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
    *("1.#QNAN", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export, and how its input is read.

    Attributes:
      path: The SavedModel's folder.
      reading: A `DataSpec` without files.
      columns: The raw features that it takes; None if it does not list them.
      is_old: Whether it is an export of 0.1.0, without a config, which does not say
        how files are read.
    """

    path: pathlib.Path
    reading: DataSpec
    columns: Mapping[str, ColumnType] | None
    is_old: bool

    def columns_of(self, format_: str) -> Mapping[str, ColumnType] | None:
        """Returns the raw features to read from files of a format."""
        if self.columns is None or not self.is_old or format_ != "csv":
            return self.columns
        # 0.1.0 read an empty cell of strings as "", whatever the default.
        return {
            name: dataclasses.replace(type_, default=None)
            if type_.dtype == "string" and not type_.is_list
            else type_
            for name, type_ in self.columns.items()
        }


def find(model: str, overrides: Sequence[str] = ()) -> Exported:
    """Finds an export.

    Args:
      model: The folder of a SavedModel, of versions (the highest is taken) or of a job,
        or a job's config.
      overrides: `data.key=value`, to read files in another way than the job; for a
        config, any of its values.

    Raises:
      ConfigError: If the config or an override is wrong.
      UsageError: If there is no export.
    """
    path = pathlib.Path(model)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        config = config_lib.load_config(path, overrides, data="ignored")
        return _of_job(config, config.model_dir)
    own = path / "config.yaml"
    if own.is_file() and not saved_model.is_there(path):
        config = config_lib.load_config(own, overrides, data="ignored")
        return _of_job(config, path)
    found = saved_model.find(path)
    content = _metadata(found)
    saved = content.get("reading")
    reading = saved or {"null_values": _NULLS_OF_0_1_0}
    return Exported(
        path=found,
        reading=overridden(found, reading, overrides),
        columns=_columns(content),
        is_old=saved is None,
    )


def _of_job(
    config: config_lib.ExperimentConfig, model_dir: str | pathlib.Path
) -> Exported:
    directory = pathlib.Path(
        config.export.directory or pathlib.Path(model_dir) / "export"
    )
    if not saved_model.is_there(directory):
        raise errors.UsageError(
            f"The job has no export in {directory}. Write one: `monolith-tf export "
            "CONFIG`."
        )
    found = saved_model.find(directory)
    return Exported(
        path=found,
        reading=DataSpec(**data_spec.reading_part(config.data)),
        columns=_columns(_metadata(found)),
        is_old=False,
    )


def _metadata(path: pathlib.Path) -> JsonDict:
    """Returns the metadata of an export; empty for another SavedModel."""
    return metadata.read(path) if metadata.is_there(path) else {}


def _columns(content: JsonMapping) -> dict[str, ColumnType] | None:
    if "columns" not in content:
        return None
    return {name: ColumnType(**saved) for name, saved in content["columns"].items()}


def overridden(
    path: pathlib.Path, reading: JsonMapping, overrides: Sequence[str]
) -> DataSpec:
    """Returns how an export says to read files, with overrides applied."""
    known = data_spec.reading_part(DataSpec())
    for key in reading:
        if key not in known:
            raise ExportError(
                f"{path} was exported with the data setting `{key}`, which this "
                "version of monolith_tf does not know. Use the version that wrote it."
            )
    given = document.Document(str(path), {"data": dict(reading)}, {})
    overrides_lib.apply(given, overrides)
    values = given.data.pop("data")
    wrong = [*given.data, *(f"data.{key}" for key in values or {} if key not in known)]
    if wrong:
        raise errors.UsageError(
            f"`{wrong[0]}` does not change how files are read. These do: "
            f"{', '.join(f'data.{key}' for key in known)}."
        )
    try:
        return pydantic.TypeAdapter(DataSpec).validate_python(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("data", *first["loc"]))
        raise errors.UsageError(f"`{key}`: {first['msg']}") from None
