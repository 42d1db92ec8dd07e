"""An export's metadata for tools, in a file next to the graph."""

import json
import pathlib

from monolith_tf.export.errors import ExportError
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

FORMAT = 1
_PATH = pathlib.PurePath("assets.extra", "monolith_tf.json")


def write(directory: pathlib.Path, content: JsonMapping) -> None:
    """Writes JSON-able content into a SavedModel."""
    path = directory / _PATH
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"format": FORMAT, **content}, indent=1))


def is_there(directory: pathlib.Path) -> bool:
    """Returns whether a SavedModel has metadata."""
    return (directory / _PATH).exists()


def read(directory: pathlib.Path) -> JsonDict:
    """Returns a SavedModel's metadata.

    Raises:
      ExportError: If it is not an export of `monolith-tf`, or one of another format.
    """
    path = directory / _PATH
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(
            f"{directory} is not an export of `monolith-tf export`: {_PATH} is missing."
        ) from None
    except ValueError as error:
        raise ExportError(f"{path} is damaged: {error}.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ExportError(
            f"{path} must be of format {FORMAT}. Export again with this version of "
            "monolith_tf."
        )
    return content
