"""Multi-gate mixture of experts over one concatenated input."""

import tensorflow as tf

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.models.params import MMoEParams


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
            layers.MLP([*params.tower_units, 1], use_weight_norm=False)
            for _ in params.tasks
        ]

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        mixtures = self._experts(inputs.concat())  # a [batch, units] per task
        logits = {}
        for task, mixture, tower in zip(
            self._tasks, mixtures, self._towers, strict=True
        ):
            logits[task] = tower(self._dropout(mixture))[:, 0]  # [batch]
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
