"""SavedModels that a stock TF Serving loads: raw features in, predictions out."""

import json
import pathlib
import shutil
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.export import examples as examples_lib
from monolith_tf.export import graph
from monolith_tf.export import verify as verify_lib
from monolith_tf.features.columns import ColumnType
from monolith_tf.models import base
from monolith_tf.models import network as network_lib
from monolith_tf.types import Tensor

PREDICT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
EXAMPLE_SIGNATURE = "serialized_example"
LENGTH_SUFFIX = "_length"


class Servable(tf.Module):
    """The exported object: a network over frozen tables, as two signatures.

    The signatures are `serving_default`, one named tensor per raw feature, and
    `serialized_example`, a batch of serialized `tf.Example`s. A scalar feature is a
    `[batch]` tensor. A list feature is padded, `[batch, length]`, with the number of
    valid entries in `<feature>_length`, `[batch]`.
    """

    def __init__(
        self, network: network_lib.Network, columns: Mapping[str, ColumnType]
    ) -> None:
        super().__init__(name="servable")
        self._columns = dict(columns)
        # Tracked one by one: the Keras model itself would save its own metadata and
        # functions with it, which serving does not need.
        self.tables = network.store
        self.encoder = network.encoder
        self.dense = list(network.model.variables)
        self._answer = _answer_function(network)

    def predict(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Answers named raw features."""
        columns = {}
        for name, kind in self._columns.items():
            value = tensors[name]
            if kind.is_list:
                lengths = tensors[name + LENGTH_SUFFIX]
                value = tf.RaggedTensor.from_tensor(value, lengths=lengths)
            columns[name] = value
        return self._answer(columns)

    def predict_examples(self, examples: Tensor) -> dict[str, Tensor]:
        """Answers serialized `tf.Example`s."""
        return self._answer(examples_lib.parse(examples, self._columns))

    def signatures(self) -> dict[str, Any]:
        """Returns the signatures, traced."""
        specs = {}
        for name, kind in self._columns.items():
            dtype = tf.as_dtype(kind.dtype)
            shape = [None, None] if kind.is_list else [None]
            specs[name] = tf.TensorSpec(shape, dtype, name=name)
            if kind.is_list:
                length = name + LENGTH_SUFFIX
                specs[length] = tf.TensorSpec([None], tf.int64, name=length)
        return {
            PREDICT_SIGNATURE: tf.function(self.predict).get_concrete_function(**specs),
            EXAMPLE_SIGNATURE: tf.function(self.predict_examples).get_concrete_function(
                tf.TensorSpec([None], tf.string, name="examples")
            ),
        }


def _answer_function(
    network: network_lib.Network,
) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    def answer(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        spec = network(columns, base.Mode.PREDICT)
        outputs = {**spec.predictions, **spec.extra_outputs}
        return {name: tf.identity(value, name=name) for name, value in outputs.items()}

    return answer


def export(
    network: network_lib.Network,
    columns: Mapping[str, ColumnType],
    directory: str | pathlib.Path,
    *,
    sample: Mapping[str, Any] | None = None,
    keep_versions: int = 5,
    description: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes `<directory>/<version>/`; it appears whole, and only if it answers right.

    Args:
      network: The network, over frozen tables.
      columns: The raw features it reads.
      directory: Where versions live. The new version is the present UTC time in
        seconds, or one more than the highest there is.
      sample: Raw columns of real rows, numpy arrays or ragged tensors, on which the
        export must give the network's own answers; None publishes unseen.
      keep_versions: How many versions stay.
      description: What tools may want to know of the model, JSON-able; it is written
        beside the graph as `assets.extra/monolith_tf.json`.

    Returns:
      The version's folder.

    Raises:
      ExportError: If the graph holds what a stock server refuses, or the export
        answers otherwise than the network. Nothing is published then.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    version = max([int(time.time()), *(v + 1 for v in versions(directory))])
    temporary = directory / f".tmp-{version}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        servable = Servable(network, columns)
        tf.saved_model.save(servable, str(temporary), signatures=servable.signatures())
        graph.strip_devices(temporary)
        graph.check(temporary)
        extra = temporary / "assets.extra"
        extra.mkdir()
        (extra / "monolith_tf.json").write_text(json.dumps(description or {}))
        if sample is not None:
            expected = {
                name: np.asarray(value)
                for name, value in tf.function(_answer_function(network))(
                    {name: sample[name] for name in columns}
                ).items()
            }
            verify_lib.verify(temporary, columns, sample, expected)
        temporary.rename(directory / str(version))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in versions(directory)[:-keep_versions]:
        shutil.rmtree(directory / str(old), ignore_errors=True)
    return directory / str(version)


def versions(directory: pathlib.Path) -> list[int]:
    """Returns the published versions, lowest first."""
    if not directory.exists():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())
