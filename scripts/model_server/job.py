"""A small job with changing rows, and the served exports."""

import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import servers
import tensorflow as tf

from monolith_tf import lineage as lineage_lib
from monolith_tf.export import metadata
from monolith_tf.export import versions
from monolith_tf.testing import batching
from monolith_tf.testing import small_job

_TIMEOUT_SECS = 600
# Dense variables do not change: only rows do, which can be published.
_OVERRIDES = (
    "trainer.deterministic=false",
    "trainer.eval_every_epochs=null",
    "trainer.checkpoint_every_steps=null",
    "trainer.optimizer.learning_rate=0.0",
    "model.params.batch_norm=false",
    "export.spare_rows=200",
    "export.output_signatures=[click]",
    "export.classify=[click]",
    "export.regress=[click]",
    "export.user_features=[user,history]",
)
_LENGTH = "_length"


class Job:
    """A job that `monolith-tf` runs.

    Args:
      folder: The folder for its files.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._config = small_job.write(folder)

    def train_and_export(self, max_steps: int, name: str) -> pathlib.Path:
        """Trains to a step, and exports to a separate folder.

        Returns:
          The version's folder.
        """
        steps = f"trainer.max_steps={max_steps}"
        _monolith_tf("train", self._config, *_OVERRIDES, steps)
        output = self._folder / name
        _monolith_tf("export", self._config, *_OVERRIDES, "--output", output)
        return newest_version(output)

    def publish(self, server: servers.Server) -> None:
        """Sends the rows of the newest checkpoint to a server."""
        options: list[Any] = ["--to", server.address, "--name", servers.NAME]
        if server.tls is not None:
            options += ["--tls-ca", server.tls.ca, "--tls-cert", server.tls.client_cert]
            options += ["--tls-key", server.tls.client_key]
        _monolith_tf("publish", self._folder / "model", *options)


class Version:
    """An exported version, and its answers in this process.

    Attributes:
      path: Its folder.

    Args:
      path: Its folder.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._records = list(batching.warmup_records(path))
        self._loaded = tf.saved_model.load(str(path))
        if not self._records:
            raise ValueError(
                f"{path} has no warm-up requests. Install the extra `serving`, and "
                "export it again with `export.verify_rows` and `export.warmup_rows`."
            )

    def requests(self, *, joined: bool) -> Iterator[batching.Record]:
        """Yields a request for each signature, that of `serving_default` first.

        Args:
          joined: Whether the server merges requests: skips those it cannot merge.
        """
        yield from self._records
        if not joined and "candidates" in self._loaded.signatures:
            user = metadata.read(self.path)["user_columns"]
            _, _, inputs = self._records[0]
            yield (
                "candidates",
                "predict",
                {
                    name: value[:1] if name.removesuffix(_LENGTH) in user else value
                    for name, value in inputs.items()
                },
            )

    def single_rows(self) -> list[dict[str, np.ndarray]]:
        """Returns one request for each row, its lists without padding."""
        _, _, inputs = self._records[0]
        rows = []
        for number in range(len(next(iter(inputs.values())))):
            row = {k: value[number : number + 1] for k, value in inputs.items()}
            for name in inputs:
                if name + _LENGTH in inputs:
                    # A server with batching cannot widen lists without columns.
                    width = max(1, row[name + _LENGTH].item())
                    row[name] = row[name][:, :width]
            rows.append(row)
        return rows

    def sender(self) -> dict[str, np.ndarray]:
        """Returns the inputs of the signatures that change a model, of this version."""
        content = metadata.read(self.path)
        lineage = lineage_lib.from_json(content["lineage"])
        return {
            "step": np.array(0, np.int64),
            "token": np.array(0, np.int64),
            "lineage": np.array(str(lineage).encode(), object),
            "newest": np.array(content["step"], np.int64),
        }

    def replace_dense(self, vector: np.ndarray) -> None:
        """Replaces the dense weights in this process."""
        inputs = {
            "values": vector,
            "offset": np.array(0, np.int64),
            "upload": np.array(0, np.int64),
            "is_last": np.array(True),
        }
        self.answer("update_dense", inputs | self.sender())

    def answer(self, key: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the SavedModel's answer."""
        outputs = self._loaded.signatures[key](
            **{name: tf.constant(value) for name, value in inputs.items()}
        )
        return {name: value.numpy() for name, value in outputs.items()}


def newest_version(folder: pathlib.Path) -> pathlib.Path:
    """Returns the highest version in a folder."""
    found = versions.folders(folder)
    if not found:
        raise ValueError(f"{folder} has no versions, folders named by a number.")
    return found[max(found)]


def _monolith_tf(*arguments: Any) -> None:
    """Runs the command.

    Raises:
      RuntimeError: If it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "monolith_tf", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"monolith-tf {arguments[0]} ended with code {done.returncode}:\n"
            f"{done.stderr[-2000:]}"
        )
