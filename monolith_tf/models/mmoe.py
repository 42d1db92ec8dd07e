"""Multi-gate mixture of experts over one concatenated input."""

import dataclasses

import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMoEParams:
    """Parameters of `MMoE`.

    Attributes:
      tasks: Labels, one task each.
      num_experts: Experts that the tasks share.
      expert_units: Widths of an expert's layers.
      tower_units: Widths of a task's tower above its mixture.
      dropout: Share of a mixture's units dropped in training.
      task_weights: Factor of each task's loss; empty weighs all alike.
    """

    tasks: tuple[str, ...]
    num_experts: int = 8
    expert_units: tuple[int, ...] = (16,)
    tower_units: tuple[int, ...] = (8,)
    dropout: float = 0.0
    task_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("`tasks` must name at least one label. Received: none.")
        if self.task_weights and len(self.task_weights) != len(self.tasks):
            raise ValueError(
                "`task_weights` must have one entry per task. Received: "
                f"{len(self.task_weights)} for {len(self.tasks)} tasks."
            )


class MMoE(base.Model):
    """One mixture of shared experts, one tower and one logit per task.

        f_t     = sum over experts e of gate_t(x)_e expert_e(x)
        logit_t = tower_t(f_t)

    Source: Ma et al., "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts", KDD 2018.
    """

    Params = MMoEParams

    def __init__(self, params: MMoEParams) -> None:
        super().__init__(name="mmoe")
        self._tasks = params.tasks
        self._weights = params.task_weights or (1.0,) * len(params.tasks)
        self._experts = layers.MMoE(
            num_tasks=len(params.tasks),
            num_experts=params.num_experts,
            expert_output_dims=list(params.expert_units),
            expert_activations="relu",
            gate_type="softmax",
        )
        self._dropout = layers.Dropout(params.dropout)
        self._towers = [
            [tf_keras.layers.Dense(units, "relu") for units in params.tower_units]
            + [tf_keras.layers.Dense(1)]
            for _ in params.tasks
        ]

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        mixtures = self._experts(inputs.concat())  # a [batch, units] per task
        logits = {}
        for task, mixture, tower in zip(
            self._tasks, mixtures, self._towers, strict=True
        ):
            hidden = self._dropout(mixture)
            for layer in tower:
                hidden = layer(hidden)
            logits[task] = hidden[:, 0]  # [batch]
        predictions = {task: tf.sigmoid(value) for task, value in logits.items()}
        if mode is base.Mode.PREDICT:
            return base.EstimatorSpec(mode=mode, predictions=predictions)
        loss = tf.add_n(
            [
                weight * losses.log_loss(inputs.labels[task], value, inputs.weights)
                for weight, (task, value) in zip(
                    self._weights, logits.items(), strict=True
                )
            ]
        )
        return base.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)
