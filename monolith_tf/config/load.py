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
      path: A YAML file. `${config_dir}` in its values is replaced by its folder.
      overrides: Values that replace those of the file, in YAML, such as
        `trainer.max_steps=200`.
      data: Which data files to check for the columns that the config names: "required",
        all of them, and a missing one is an error; "present", those that exist;
        "ignored", none.

    Raises:
      ConfigError: If the file cannot be read, or the config has errors; it gives the
        file, line and key of each error.
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
    """Reads and checks the text of a config; see `load_config`.

    Args:
      text: YAML.
      source: The name of the config in messages.
      overrides: Values that replace those of the text.
      config_dir: The value of `${config_dir}`.
      data: Which data files to check.

    Raises:
      ConfigError: If the config has errors.
    """
    config = document.parse(text, source)
    overrides_lib.apply(config, overrides)
    document.substitute(config, {"config_dir": config_dir})
    _name_default_table(config)
    spec = validate.validate(config)
    checks.check(spec, config, data=data)
    return spec


def _name_default_table(config: document.Document) -> None:
    """Gives `default_table` a name, since it may lack one and other tables may not."""
    table = config.get(("default_table",))
    if isinstance(table, dict):
        table.setdefault("name", "default_table")


def _unreadable(source: str, what: str) -> errors.ConfigError:
    problem = errors.Problem(errors.Mark(source), (), f"The file {what}.")
    return errors.ConfigError([problem])
