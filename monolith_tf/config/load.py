"""A config file and command-line overrides to a checked `ExperimentConfig`."""

import os
import pathlib
from collections.abc import Sequence

from monolith_tf.config import checks
from monolith_tf.config import document
from monolith_tf.config import errors
from monolith_tf.config import overrides as overrides_lib
from monolith_tf.config import schema
from monolith_tf.config import validate


def load_config(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    data: checks.DataCheck = "present",
) -> schema.ExperimentConfig:
    """Reads and checks a config file.

    Args:
      path: A YAML file. `${config_dir}` in its values stands for its folder.
      overrides: What replaces values of the file, such as `trainer.max_steps=200`, the
        value in YAML.
      data: Which data files to look into for the columns that the config names:
        "required", all of them, and one that is missing is an error; "present", those
        that are there; "ignored", none.

    Raises:
      ConfigError: If the file cannot be read, or the config cannot be used; it names
        the file, the line and the key of everything that is wrong.
    """
    source = os.fspath(path)
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(source, f"is not UTF-8 at byte {error.start}") from None
    except FileNotFoundError:
        raise _unreadable(source, "does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unreadable(source, f"cannot be read ({reason})") from None
    return parse_config(
        text,
        source,
        overrides,
        config_dir=os.path.dirname(source) or ".",
        data=data,
    )


def parse_config(
    text: str,
    source: str = "config",
    overrides: Sequence[str] = (),
    *,
    config_dir: str = ".",
    data: checks.DataCheck = "present",
) -> schema.ExperimentConfig:
    """Reads and checks a config; arguments as `load_config`.

    Args:
      text: YAML.
      source: What messages call it.
      overrides: What replaces values of the text.
      config_dir: What `${config_dir}` stands for.
      data: Which data files to look into.

    Raises:
      ConfigError: If the config cannot be used.
    """
    config = document.parse(text, source)
    overrides_lib.apply(config, overrides)
    document.substitute(config, {"config_dir": config_dir})
    _name_default_table(config)
    spec = validate.validate(config)
    checks.check(spec, config, data=data)
    return spec


def _name_default_table(config: document.Document) -> None:
    """Lets `default_table` do without the name that every other table has."""
    table = config.get(("default_table",))
    if isinstance(table, dict):
        table.setdefault("name", "default_table")


def _unreadable(source: str, what: str) -> errors.ConfigError:
    problem = errors.Problem(errors.Mark(source), (), f"The file {what}.")
    return errors.ConfigError([problem])
