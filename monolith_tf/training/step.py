"""One training step, and N of them inside one function."""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from monolith_tf import random
from monolith_tf.embedding.shard.batch_log import Claims
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.features import encode
from monolith_tf.models import base
from monolith_tf.models import network as network_lib
from monolith_tf.training import optimizers
from monolith_tf.types import Tensor


class LoopResult(NamedTuple):
    """The result of a call of `TrainStep.loop`.

    Attributes:
      steps: Steps taken; fewer than requested if the data ended or a loss was not
        finite.
      examples: Rows in their batches.
      loss_sum: Sum over the steps of the total loss.
      finite: Whether the last loss computed was finite.
      norm: Global norm of the last step's gradients, before clipping.
      auxiliary: Name -> sum over the steps of an auxiliary loss.
      clipped: Feature with a `clip` -> values that it changed, int64.
    """

    steps: Tensor
    examples: Tensor
    loss_sum: Tensor
    finite: Tensor
    norm: Tensor
    auxiliary: Mapping[str, Tensor]
    clipped: Mapping[str, Tensor]

    def plus(self, made: "Gradients") -> "LoopResult":
        """Returns the result with one more step, counted only if its loss is finite."""
        finite = tf.math.is_finite(made.loss)
        one = tf.cast(finite, tf.int64)
        return LoopResult(
            steps=self.steps + one,
            examples=self.examples + one * made.examples,
            loss_sum=self.loss_sum + made.loss,
            finite=finite,
            norm=made.norm,
            auxiliary={
                name: self.auxiliary[name] + tf.cast(value, tf.float32)
                for name, value in made.auxiliary.items()
            },
            clipped={
                name: self.clipped[name] + one * value
                for name, value in made.clipped.items()
            },
        )


class PulledBatch(NamedTuple):
    """A batch with its rows.

    Attributes:
      columns: Its raw columns.
      batch: The encoded batch.
      pulled: The rows from the store.
    """

    columns: dict[str, Tensor]
    batch: encode.FeatureBatch
    pulled: Any


class Gradients(NamedTuple):
    """The results of the forward and backward pass of a batch.

    Attributes:
      loss: The total loss.
      norm: Global norm of the gradients before clipping, or 0.
      auxiliary: Name -> auxiliary loss.
      examples: Rows in the batch.
      clipped: Feature -> values of the batch that its `clip` changed.
      dense: Gradients of the dense variables, in their order; None for no gradient.
      rows: Group of tables -> gradients of the pulled rows.
    """

    loss: Tensor
    norm: Tensor
    auxiliary: dict[str, Tensor]
    examples: Tensor
    clipped: dict[str, Tensor]
    dense: list[Tensor]
    rows: dict[str, Tensor]


class TrainStep(tf.Module):
    """Forward, backward, and the updates of dense variables and rows.

    A step whose loss is not finite changes no variable, no row's value, and not the
    step counter.

    Attributes:
      step: The global step, int64: the number of updates so far.
      dense: The dense variables' optimizers; None before `build`.
      rate_scale: Factor of all learning rates, or None.
      state: Holds what a checkpoint saves: step, model and optimizers, but not the
        rows, which the store saves itself.
    """

    def __init__(
        self,
        network: network_lib.Network[EmbeddingStore],
        default_optimizer: tf_keras.optimizers.Optimizer,
        *,
        clip_norm: float | None = None,
        rate_scale: tf.Variable | None = None,
        seed: int = 0,
        claims: Claims | None = None,
    ) -> None:
        """Makes a step.

        Args:
          network: The forward path.
          default_optimizer: Used if the model's spec names none.
          clip_norm: Bound on the global norm over the gradients of dense variables and
            rows together; None does not clip.
          rate_scale: Factor of the rows' learning rates, saved in checkpoints;
            `default_optimizer` must already include it. None is 1.
          seed: Seed of the layers' random numbers.
          claims: Decides which steps update dense variables, if their batches may come
            again; None for all of them.
        """
        super().__init__(name="train_step")
        self.network = network
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")
        self.dense: optimizers.DenseUpdate | None = None
        self.state = tf.Module(name="state")
        self.state.step = self.step
        self.rate_scale = rate_scale
        if rate_scale is not None:
            self.state.rate_scale = rate_scale
        self._default_optimizer = default_optimizer
        self._clip_norm = clip_norm
        self._seed = seed
        self._claims = claims
        self._auxiliary: tuple[str, ...] = ()

    def build(self, element_spec: Mapping[str, Tensor]) -> None:
        """Makes the model's and the optimizers' variables, only by tracing.

        Args:
          element_spec: Type specs of a batch of columns, as of a dataset.
        """
        specs: list[base.EstimatorSpec] = []

        @tf.function
        def trace(columns: Mapping[str, Tensor]) -> None:
            batch, pulled = self.network.lookup(columns, base.Mode.EVALUATE)
            with random.step_scope(self._seed, self.step):
                specs.append(self.network.run(columns, batch, pulled, base.Mode.TRAIN))

        trace.get_concrete_function(dict(element_spec))
        self._auxiliary = tuple(specs[0].auxiliary_losses)
        self.dense = optimizers.DenseUpdate(
            specs[0].optimizer or self._default_optimizer,
            self.network.model.trainable_variables,
        )
        self.state.model = self.network.model
        self.state.optimizers = [optimizer for optimizer, _ in self.dense.groups]

    def __call__(
        self,
        columns: Mapping[str, Tensor],
        now_secs: Tensor,
        number: Tensor | None = None,
    ) -> Gradients:
        """Takes one step.

        Args:
          columns: The batch.
          now_secs: Seconds since 1970.
          number: Number of a batch that may come again; None if it does not. A batch
            that comes again changes nothing.
        """
        held = self.pull(columns, now_secs, number)
        made = self.compute(held)

        def update() -> Tensor:
            now = self.step.read_value()
            self.update_dense(held, made)
            self.push(held, made.rows, now)
            return now

        tf.cond(tf.math.is_finite(made.loss), update, lambda: self.step + 0)
        return made

    def pull(
        self,
        columns: Mapping[str, Tensor],
        now_secs: Tensor,
        number: Tensor | None = None,
    ) -> PulledBatch:
        """Looks a batch's rows up; arguments as for a call."""
        batch, pulled = self.network.lookup(
            columns,
            base.Mode.TRAIN,
            step=self.step,
            now_secs=now_secs,
            batch=number,
        )
        return PulledBatch(dict(columns), batch, pulled)

    def compute(self, held: PulledBatch) -> Gradients:
        """Runs the forward and the backward pass."""
        columns, batch, pulled = held
        model = self.network.model
        variables = model.trainable_variables
        with (
            random.step_scope(self._seed, self.step),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(variables)
            tape.watch(pulled.rows)
            spec = self.network.run(columns, batch, pulled, base.Mode.TRAIN)
            loss = model.total_loss(spec)
        gradients = tape.gradient(loss, [list(variables), dict(pulled.rows)])
        dense, rows = gradients[0], {k: _summed(v) for k, v in gradients[1].items()}
        dense, rows, norm = self._clip(dense, rows)
        examples = tf.shape(next(iter(spec.predictions.values())), tf.int64)[0]
        rows = {name: rows for name, rows in rows.items() if rows is not None}
        return Gradients(
            loss=loss,
            norm=norm,
            auxiliary=dict(spec.auxiliary_losses),
            examples=examples,
            clipped=self.network.encoder.clipped(columns),
            dense=dense,
            rows=rows,
        )

    def update_dense(self, held: PulledBatch, made: Gradients) -> None:
        """Updates the dense variables and the step counter, once for each batch."""
        dense = self.dense
        if dense is None:
            raise ValueError("`build` must be called before the first step.")
        variables = self.network.model.trainable_variables

        def update() -> Tensor:
            dense.apply(list(zip(made.dense, variables, strict=True)))
            return self.step.assign_add(1)

        number = held.pulled.batch
        if self._claims is None or isinstance(number, tuple):
            update()
        else:
            tf.cond(self._claims.claim(number), update, lambda: self.step + 0)

    def forget_batches(self, before: int) -> None:
        """Frees the memory of batches before a number, which change nothing then."""
        self.network.store.forget_batches(before)
        if self._claims is not None:
            self._claims.forget(before)

    def push(self, held: PulledBatch, rows: Mapping[str, Tensor], step: Tensor) -> None:
        """Updates the rows with gradients that were computed at a global step."""
        self.network.store.apply_gradients(held.pulled, rows, step, self.rate_scale)

    def no_result(self) -> LoopResult:
        """Returns the result of zero steps."""
        return LoopResult(
            steps=tf.constant(0, tf.int64),
            examples=tf.constant(0, tf.int64),
            loss_sum=tf.constant(0.0),
            finite=tf.constant(True),
            norm=tf.constant(0.0),
            auxiliary={name: tf.constant(0.0) for name in self._auxiliary},
            clipped={
                name: tf.constant(0, tf.int64) for name in self.network.encoder.clipping
            },
        )

    @tf.autograph.experimental.do_not_convert
    def _clip(self, dense: list, rows: dict) -> tuple[list, dict, Tensor]:
        present = [g for g in [*dense, *rows.values()] if g is not None]
        if self._clip_norm is None:
            return dense, rows, tf.constant(0.0)
        norm = tf.linalg.global_norm(present)
        # As in `tf.clip_by_global_norm`, but over dense tensors and rows together.
        scale = tf.minimum(1.0, self._clip_norm / tf.maximum(norm, 1e-30))
        clipped = iter([_scaled(g, scale) for g in present])
        dense = [None if g is None else next(clipped) for g in dense]
        rows = {k: None if g is None else next(clipped) for k, g in rows.items()}
        return dense, rows, norm

    def loop(
        self, iterator: tf.data.Iterator, steps: Tensor, now_secs: Tensor
    ) -> LoopResult:
        """Takes up to `steps` steps on batches of a dataset iterator.

        Wrap it in a `tf.function`; the number of steps is a tensor, so one trace serves
        every number.
        """
        result = self.no_result()
        more = tf.constant(True)
        while tf.logical_and(result.steps < steps, tf.logical_and(result.finite, more)):
            optional = iterator.get_next_as_optional()
            more = optional.has_value()
            if more:
                result = result.plus(self(optional.get_value(), now_secs))
        return result


def _summed(gradient: Tensor) -> Tensor | None:
    """Turns the gradient of a gather into one dense gradient per row."""
    return None if gradient is None else tf.convert_to_tensor(gradient)


def _scaled(gradient: Tensor, scale: Tensor) -> Tensor:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            gradient.values * scale, gradient.indices, gradient.dense_shape
        )
    return gradient * scale
