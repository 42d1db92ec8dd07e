"""The object that an export saves: a network, as signatures."""

import types
from collections.abc import Mapping

import tensorflow as tf

from monolith_tf.export import candidates
from monolith_tf.export import dense_updates
from monolith_tf.export import flat_dense
from monolith_tf.export import roll_back
from monolith_tf.export import row_reads
from monolith_tf.export import signatures as signatures_lib
from monolith_tf.export import updates as updates_lib
from monolith_tf.export import user_columns
from monolith_tf.export.named_inputs import NamedInputs
from monolith_tf.export.spec import ExportSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.layers.functional import forms
from monolith_tf.models import base
from monolith_tf.models.frozen_network import FrozenNetwork
from monolith_tf.types import Tensor

PREDICT_KEY = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
EXAMPLE_KEY = "serialized_example"


class Servable(tf.Module):
    """A network over frozen tables, with its signatures.

    `serving_default` takes one named tensor per raw feature and `serialized_example` a
    batch of serialized `tf.Example`s; `ExportSpec` adds more.

    Attributes:
      signatures: Key -> signature.

    Args:
      network: The network.
      columns: The raw features it reads.
      spec: The signatures to create.
      updates: The state that the signature `update_embeddings` changes, or None.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        columns: Mapping[str, ColumnType],
        spec: ExportSpec,
        updates: updates_lib.Updates | None = None,
    ) -> None:
        super().__init__(name="servable")
        # Tracked one by one: the Keras model would also save its metadata and
        # functions, which serving does not need.
        self.tables = network.store
        self.encoder = network.encoder
        self.updates = updates
        self.flat: flat_dense.FlatDense | None = None
        self.dense = list(network.model.variables)
        if updates is not None:
            self.flat = flat_dense.FlatDense(network.model)
            self.dense = [v for v in self.dense if not flat_dense.is_flat(v)]
        answer = answer_function(network)
        named = NamedInputs(columns, spec.list_inputs)
        found: list[tuple[str, signatures_lib.Signature]] = [
            (PREDICT_KEY, signatures_lib.Named(named, answer)),
            (EXAMPLE_KEY, signatures_lib.Examples(columns, answer)),
        ]
        for name in spec.output_signatures:
            found.append((name, signatures_lib.Named(named, answer, name)))
        for head in spec.classify:
            classify = signatures_lib.Classify(columns, answer, head)
            found.append((f"classify_{head}", classify))
        for head in spec.regress:
            regress = signatures_lib.Regress(columns, answer, head)
            found.append((f"regress_{head}", regress))
        if spec.user_features:
            columns_of_user = user_columns.find(
                network.encoder.features, spec.user_features
            )
            of_user = candidates.Candidates(
                columns,
                spec.list_inputs,
                columns_of_user,
                answer_function(network, spec.user_features),
            )
            found.append((candidates.KEY, of_user))
        if updates is not None and self.flat is not None:
            self.dense_updates = dense_updates.DenseUpdates(self.flat, updates)
            found += [
                (updates_lib.KEY, updates_lib.Update(updates, network.store)),
                (dense_updates.KEY, dense_updates.UpdateDense(self.dense_updates)),
                (row_reads.READ_KEY, row_reads.ReadRows(updates, network.store)),
                (row_reads.LIST_KEY, row_reads.ListRows(updates, network.store)),
                (dense_updates.READ_KEY, dense_updates.ReadDense(self.dense_updates)),
                (roll_back.KEY, roll_back.RollBack(updates)),
            ]
        signatures_lib.check_keys([key for key, _ in found])
        # A plain dictionary would be saved too.
        self.signatures: Mapping[str, signatures_lib.Signature] = (
            types.MappingProxyType(dict(found))
        )

    def trace(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the functions of all signatures, traced."""
        traced: dict[str, tf.types.experimental.ConcreteFunction] = {}
        for key, signature in self.signatures.items():
            if traced:
                signature.check(traced[PREDICT_KEY].structured_outputs)
            if self.flat is not None:
                traced[key] = self.flat.traced(key, signature.call, signature.specs)
            else:
                function = tf.function(signature.call)
                traced[key] = function.get_concrete_function(**signature.specs)
        return traced


def answer_function(
    network: FrozenNetwork, user_features: tuple[str, ...] = ()
) -> signatures_lib.Answer:
    """Returns a function from raw columns to predictions and extra outputs.

    Args:
      network: The network.
      user_features: Features whose columns have one row for all rows of the others.
    """

    def answer(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with forms.exporting():
            if user_features:
                spec = network.candidates(columns, user_features)
            else:
                spec = network(columns, base.Mode.PREDICT)
        outputs = {**spec.predictions, **spec.extra_outputs}
        return {name: tf.identity(value, name=name) for name, value in outputs.items()}

    return answer
