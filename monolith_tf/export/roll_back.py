"""The signature that lets an older state be sent to a served model."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from monolith_tf.export import signatures
from monolith_tf.export import update_state
from monolith_tf.types import Tensor

KEY = "roll_back"


class RollBack(signatures.Signature):
    """Begins a way back, for the job of the served values.

    `update_embeddings` and `update_dense` refuse values older than the served ones.
    After this request they take those of the sender's `newest`, of the same line or of
    a newer branch, from whoever has the new token. No value changes by the request.
    Until the sender sets `step` again, with the last of the values, the model says that
    it is at step 0: so if the sender dies, the next one knows that all must be sent.

    Inputs: `token`, `lineage` and `newest` as in `update_embeddings`; `confirm`, bool,
    False only checks whether the request would be accepted. Outputs: `before`, the step
    before; `step`; and `token`, a new one, so that no other sender goes on.
    """

    joins_rows = False

    def __init__(self, state: update_state.UpdateState) -> None:
        names = ("token", "lineage", "newest")
        self.specs = {
            **{name: update_state.SPECS[name] for name in names},
            "confirm": tf.TensorSpec([], tf.bool, name="confirm"),
        }
        self._state = state

    @tf.autograph.experimental.do_not_convert
    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        confirm = tensors.pop("confirm")
        sender = update_state.Sender(step=tf.constant(0, tf.int64), **tensors)
        return self._state.set_back(KEY, sender, confirm)

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class; the request changes nothing."""
        del sample
        return {
            "token": np.array(0, np.int64),
            "lineage": np.array(self._state.lineage.numpy(), object),
            "newest": np.array(0, np.int64),
            "confirm": np.array(False),
        }

    def expected(
        self, sample: Mapping[str, Tensor], answer: signatures.Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        del sample, answer
        step = self._state.step.numpy()
        return {"before": step, "step": step}
