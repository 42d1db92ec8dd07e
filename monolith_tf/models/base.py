"""The base class of models, their inputs and modes, and what `model_fn` returns."""

import dataclasses
import enum
from collections.abc import Collection
from collections.abc import Mapping

import tensorflow as tf
import tf_keras

from monolith_tf.models.named_tensors import NamedTensors
from monolith_tf.types import Tensor
from monolith_tf.types import Training

_IF_EMPTY = {
    "labels": "`Mode.PREDICT` has no labels: compute losses in the other modes only.",
    "masks": "Only features with the combiner `first_n` have a mask.",
}


class Mode(enum.Enum):
    """The purpose of a call of `model_fn`."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    PREDICT = "predict"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """One batch, as passed to `model_fn`.

    Attributes:
      embeddings: Feature -> pooled embedding, `[batch, dim]`; `[batch, max_length,
        dim]` for the combiner `first_n`; ragged for the combiner `none`. The slices of
        a row are concatenated in order.
      slices: Feature -> slice name -> the embedding of that slice.
      masks: Feature -> `[batch, max_length]` bool, for `first_n` features.
      dense: Dense feature -> `[batch, width]` float32.
      labels: Label -> `[batch]` float32; empty in `Mode.PREDICT`.
      weights: Weight of each example, `[batch]`, or None if the config names no
        weights.
      keys: Feature -> feature ids, for losses and metrics that group by them.

    An unknown name in a mapping raises a `KeyError` that lists the known names.
    """

    embeddings: Mapping[str, Tensor]
    slices: Mapping[str, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    dense: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    weights: Tensor | None = None
    keys: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Wraps each mapping, so that an unknown name raises a helpful error."""
        for name in ("embeddings", "masks", "dense", "labels", "keys"):
            if_empty = _IF_EMPTY.get(name, "It is empty.")
            named = NamedTensors(
                getattr(self, name), what=f"inputs.{name}", if_empty=if_empty
            )
            object.__setattr__(self, name, named)
        slices = {
            feature: NamedTensors(value, what=f'inputs.slices["{feature}"]')
            for feature, value in self.slices.items()
        }
        named = NamedTensors(slices, what="inputs.slices")
        object.__setattr__(self, "slices", named)

    def concat(self) -> Tensor:
        """Concatenates all embeddings and dense features, `[batch, width]`.

        Features are in the order of the config, embeddings first. A `first_n` embedding
        is flattened.

        Raises:
          ValueError: If there is no feature, or one is ragged (combiner `none`).
        """
        parts = []
        for name, value in [*self.embeddings.items(), *self.dense.items()]:
            if isinstance(value, tf.RaggedTensor):
                raise ValueError(
                    "A ragged embedding cannot be concatenated. Received: feature "
                    f"`{name}` with combiner `none`. Pool it first, or set a combiner."
                )
            if value.shape.rank > 2:
                value = tf.reshape(value, [-1, value.shape[1] * value.shape[2]])
            parts.append(value)
        if not parts:
            raise ValueError("There are no features to concatenate.")
        return tf.concat(parts, axis=-1)

    def rows_of_items(self, user_features: Collection[str]) -> Tensor:
        """Returns the number of rows of the items' features, an integer scalar."""
        values = {**self.embeddings, **self.dense}
        value = next(v for name, v in values.items() if name not in user_features)
        is_ragged = isinstance(value, tf.RaggedTensor)
        return value.nrows() if is_ragged else tf.shape(value)[0]

    def repeated(self, user_features: Collection[str]) -> "Inputs":
        """Returns inputs with the user's features repeated for each item.

        Args:
          user_features: Features with one row, which is repeated; the others have one
            row per item.
        """
        first = tf.zeros([self.rows_of_items(user_features)], tf.int32)

        def repeat(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {
                name: tf.nest.map_structure(lambda x: tf.gather(x, first), value)
                if name in user_features
                else value
                for name, value in values.items()
            }

        return dataclasses.replace(
            self,
            embeddings=repeat(self.embeddings),
            slices=repeat(self.slices),
            masks=repeat(self.masks),
            dense=repeat(self.dense),
            keys=repeat(self.keys),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimatorSpec:
    """What a `model_fn` returns.

    Attributes:
      mode: The mode it was called with.
      predictions: Head -> predictions, `[batch]`; one tensor for a single head, which
        is then named after the single label (`prediction` where there are no labels).
      loss: Scalar to minimize; needed in `TRAIN`, reported in `EVALUATE`. The trainer
        adds the losses of layers, from `add_loss` and regularizers.
      optimizer: Optimizer of the dense variables; None takes `trainer.optimizer` from
        the config. It must be the same object in every call.
      auxiliary_losses: Name -> scalar; added to `loss` and logged by name.
      extra_outputs: Name -> tensor with a batch axis, exported with the predictions.
      head_labels: Head -> label, for heads that are not named after their label.
    """

    mode: Mode
    predictions: Mapping[str, Tensor] | Tensor
    loss: Tensor | None = None
    optimizer: tf_keras.optimizers.Optimizer | None = None
    auxiliary_losses: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    extra_outputs: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    head_labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Model(tf_keras.Model):
    """Base class of models: layers made in `__init__`, assembled in `model_fn`.

    `call` runs `model_fn`, so Keras passes `training` to every layer and collects the
    losses that layers add. `model_fn` needs no code for either.

    Example:
      >>> class Wide(Model):
      ...     def __init__(self, params):
      ...         super().__init__()
      ...         self._logit = tf_keras.layers.Dense(1)
      ...
      ...     def model_fn(self, inputs, mode):
      ...         logit = self._logit(inputs.concat())[:, 0]
      ...         return EstimatorSpec(mode=mode, predictions=tf.sigmoid(logit))
      >>> spec = Wide(None).run(Inputs(embeddings={"a": tf.ones([3, 2])}), Mode.PREDICT)
      >>> spec.predictions["prediction"].shape
      TensorShape([3])
    """

    Params: type | None = None
    """A frozen dataclass that describes `model.params` of the config, or None."""

    def __init__(self, **kwargs: object) -> None:
        # Labels and weights arrive with the features; a mixed-precision policy must
        # not cast them.
        super().__init__(autocast=False, **kwargs)

    def model_fn(self, inputs: Inputs, mode: Mode) -> EstimatorSpec:
        """Builds predictions and loss from a batch.

        Called each time a step function is traced, so create layers and their variables
        in `__init__`.

        Args:
          inputs: The batch.
          mode: The purpose of the call.

        Raises:
          NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"`{type(self).__name__}` defines no `model_fn`.")

    def candidates_fn(
        self, inputs: Inputs, user_features: Collection[str]
    ) -> EstimatorSpec:
        """Builds predictions of many items for one user.

        Repeats the user's inputs for each item. A model with a part that reads only the
        user's features may override this to run that part once.

        Args:
          inputs: The user's features, with one row, and the items' features.
          user_features: Names of the user's features.
        """
        return self.model_fn(inputs.repeated(user_features), Mode.PREDICT)

    def call(  # noqa: D102
        self,
        inputs: dict[str, Tensor],
        training: Training = None,
        mode: Mode = Mode.PREDICT,
        user_features: Collection[str] = (),
    ) -> EstimatorSpec:
        del training  # Keras passes it to the layers in its call context.
        if user_features:
            return self.candidates_fn(Inputs(**inputs), user_features)
        return self.model_fn(Inputs(**inputs), mode)

    def run(
        self, inputs: Inputs, mode: Mode, *, user_features: Collection[str] = ()
    ) -> EstimatorSpec:
        """Calls the model in `mode`.

        Args:
          inputs: The batch.
          mode: The purpose of the call.
          user_features: The user's features, with one row, where the others have one
            row per item; only in mode PREDICT.

        Returns:
          The checked spec of `model_fn`, with predictions as a mapping.

        Raises:
          TypeError: If `model_fn` does not return an `EstimatorSpec`.
          ValueError: If the spec lacks what the mode needs, or names unknown labels.
        """
        fields = {
            field.name: getattr(inputs, field.name)
            for field in dataclasses.fields(inputs)
        }
        spec = self(
            fields,
            training=mode is Mode.TRAIN,
            mode=mode,
            user_features=user_features,
        )
        return _checked(type(self).__name__, spec, inputs, mode)

    def total_loss(self, spec: EstimatorSpec) -> Tensor:
        """Returns the sum of the spec's losses and the layers' losses, a scalar."""
        total = tf.cast(spec.loss, tf.float32)
        for loss in [*spec.auxiliary_losses.values(), *self.losses]:
            total += tf.cast(loss, tf.float32)
        return total


@tf.autograph.experimental.do_not_convert
def _checked(
    name: str, spec: EstimatorSpec, inputs: Inputs, mode: Mode
) -> EstimatorSpec:
    if not isinstance(spec, EstimatorSpec):
        raise TypeError(
            f"`{name}.model_fn` must return an `EstimatorSpec`. "
            f"Received: {type(spec).__name__}."
        )
    predictions = spec.predictions
    if not isinstance(predictions, Mapping):
        labels = list(inputs.labels)
        if len(labels) > 1:
            raise ValueError(
                f"`{name}.model_fn` returned one tensor as `predictions` for the "
                f"labels {labels}. Return a mapping from head to tensor."
            )
        predictions = {labels[0] if labels else "prediction": predictions}
    for head, value in predictions.items():
        rank = value.shape.rank
        if rank == 2 and value.shape[1] == 1:
            raise ValueError(
                f"`{name}.model_fn`: predictions of head `{head}` must have shape "
                f"[batch]. Received: shape={value.shape}. Take column 0."
            )
        label = spec.head_labels.get(head, head)
        if mode is not Mode.PREDICT and inputs.labels and label not in inputs.labels:
            raise ValueError(
                f"`{name}.model_fn`: head `{head}` belongs to the label `{label}`, "
                f"which the batch lacks. Received labels: {sorted(inputs.labels)}. "
                "Name the head after its label, or map it in `head_labels`."
            )
    if mode is Mode.TRAIN:
        if spec.loss is None:
            raise ValueError(f"`{name}.model_fn` returned no `loss` in mode TRAIN.")
        if spec.loss.shape.rank != 0:
            raise ValueError(
                f"`{name}.model_fn`: `loss` must be a scalar. "
                f"Received: shape={spec.loss.shape}. Reduce it over the batch."
            )
    return dataclasses.replace(spec, predictions=dict(predictions))
