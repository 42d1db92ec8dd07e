"""The signatures that replace and read the dense weights of a served model."""

import json
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from monolith_tf.export import refusals
from monolith_tf.export import signatures
from monolith_tf.export import update_state
from monolith_tf.export.flat_dense import FlatDense
from monolith_tf.types import Tensor

KEY = "update_dense"
READ_KEY = "read_dense"

_VERIFIED = 4096  # Numbers of the vector that are read to verify an export.


class DenseUpdates(tf.Module):
    """Receives the dense weights in pieces, and replaces them at once.

    Args:
      dense: The dense weights.
      state: Whose values the model serves.
    """

    def __init__(self, dense: FlatDense, state: update_state.UpdateState) -> None:
        super().__init__(name="dense_updates")
        self.dense = dense
        self.state = state
        # The vector that is being sent; empty before the first upload.
        self.staged = tf.Variable(
            tf.zeros([0]), shape=tf.TensorShape([None]), trainable=False
        )
        self.upload = update_state.scalar(0)
        self.received = update_state.scalar(0)
        self.served = update_state.scalar(0)

    @tf.autograph.experimental.do_not_convert
    def apply(
        self,
        values: Tensor,
        offset: Tensor,
        upload: Tensor,
        is_last: Tensor,
        **sender: Tensor,
    ) -> dict[str, Tensor]:
        """Takes a piece of the vector of dense weights; the last makes all served.

        Pieces come in order. One may be sent again, also the last. Of two senders at
        once the one that began later goes on, and the other is refused. A refused
        request changes nothing that is served. A request without values, with `is_last`
        False and step 0, only reads.

        Args:
          values: Numbers of the vector, which `flat_layout.FlatLayout` describes,
            `[k]`, float32. Weights must be finite.
          offset: Index of the first of them.
          upload: 0 begins an upload, with offset 0; the further pieces have the
            `upload` that it returned.
          is_last: Whether the vector is complete with them and is to be served, as that
            of the sender's `newest`.
          **sender: The fields of `update_state.Sender`.

        Returns:
          `received`: how many values the upload has; `size`: how many it needs;
          `upload`; `dense_step`: the step of the served dense weights, 0 after
          `roll_back`; `step` and `token` as in `update_embeddings`.
        """
        who, state = update_state.Sender(**sender), self.state
        size = tf.constant(self.dense.layout.size, tf.int64)
        count = tf.size(values, tf.int64)
        checks = _check_place(offset, count, size) + state.checked_steps(KEY, who)
        with tf.control_dependencies(checks), update_state.locked() as lock:
            mine, same = state.checked_token(KEY, who.token)
            changes = (count > 0) | is_last | (who.step > 0)
            with tf.control_dependencies([same]):
                related = state.related(KEY, who.lineage, who.newest, changes)
            begins = (upload == 0) & (offset == 0) & (count > 0)
            had = self.received.read_value()
            has = tf.where(begins, count, tf.maximum(had, offset + count))
            current = self.upload.read_value()
            with tf.control_dependencies(related):
                fits = self._check_upload(
                    begins | ((count == 0) & ~is_last), upload, current, offset, had
                )
            with tf.control_dependencies(fits):
                complete = tf.debugging.Assert(
                    ~is_last | (has == size),
                    [f"{KEY}: {refusals.INCOMPLETE}. Received and needed:", has, size],
                )
            number = tf.where(
                begins, tf.maximum(update_state.now(), current + 1), current
            )
            with tf.control_dependencies([complete]):
                # First of all, so that nobody continues an upload that is overwritten.
                taken = self.upload.assign(number)
            with tf.control_dependencies([taken]):
                staged = tf.cond(
                    count > 0,
                    lambda: self._stage(values, offset, begins, has),
                    lambda: had,
                )
            with tf.control_dependencies([staged]):
                reached = tf.cond(
                    is_last,
                    lambda: self._serve(number, who.newest),
                    state.dense_step.read_value,
                )
            with tf.control_dependencies([reached]):
                step, written = state.moved(who, mine, is_last | (who.step > 0))
            lock.release(written)
            return lock.after(
                {
                    "received": staged,
                    "size": size,
                    "upload": number,
                    "dense_step": reached,
                    "step": step,
                    "token": mine,
                }
            )

    @tf.autograph.experimental.do_not_convert
    def read(self, offset: Tensor, size: Tensor) -> dict[str, Tensor]:
        """Returns numbers of the served vector.

        Args:
          offset: Index of the first.
          size: How many; fewer are returned at the end of the vector.

        Returns:
          `values`, `[k]`, float32; `size` of the vector; `upload`: which one it is, so
          pieces of equal `upload` and `token` are of one vector; `layout`: JSON of its
          `flat_layout.FlatLayout`; `dense_step`, `step` and `token`.
        """
        with update_state.locked() as lock:
            inside = tf.debugging.Assert(
                (offset >= 0) & (size >= 0),
                [f"{READ_KEY}: offset and size must not be negative.", offset, size],
            )
            with tf.control_dependencies([inside]):
                flat = self.dense.values.read_value()
            answer = {
                "values": flat[offset : offset + size],
                "size": tf.size(flat, tf.int64),
                "upload": self.served.read_value(),
                "layout": tf.constant(json.dumps(self.dense.layout.to_json())),
                "dense_step": self.state.dense_step.read_value(),
                "step": self.state.step.read_value(),
                "token": self.state.token.read_value(),
            }
            lock.release([value.op for value in answer.values()])
            return lock.after(answer)

    def _check_upload(
        self,
        begins: Tensor,
        upload: Tensor,
        current: Tensor,
        offset: Tensor,
        had: Tensor,
    ) -> list[tf.Operation]:
        """Returns operations that fail for a piece of another upload, or a gap."""
        mine = tf.debugging.Assert(
            begins | (upload == current),
            [f"{KEY}: {refusals.OTHER_UPLOAD}. Its number:", current, upload],
        )
        with tf.control_dependencies([mine]):
            next_one = tf.debugging.Assert(
                begins | (offset <= had),
                [
                    f"{KEY}: pieces must come in order, without a gap. Values "
                    "received, and offset:",
                    had,
                    offset,
                ],
            )
        return [mine, next_one]

    def _stage(
        self, values: Tensor, offset: Tensor, begins: Tensor, has: Tensor
    ) -> Tensor:
        """Writes values to the staged vector; returns how many it has."""

        def start() -> Tensor:
            empty = tf.zeros([self.dense.layout.size])
            with tf.control_dependencies([self.staged.assign(empty)]):
                return tf.constant(True)

        with tf.control_dependencies([tf.cond(begins, start, lambda: begins)]):
            written = tf.raw_ops.ResourceStridedSliceAssign(
                ref=self.staged.handle,
                begin=tf.reshape(offset, [1]),
                end=tf.reshape(offset + tf.size(values, tf.int64), [1]),
                strides=tf.ones([1], tf.int64),
                value=values,
            )
        with tf.control_dependencies([written]):
            return tf.identity(self.received.assign(has))

    def _serve(self, upload: Tensor, newest: Tensor) -> Tensor:
        """Makes the staged vector the served one; returns its step."""
        layout = self.dense.layout
        staged = tf.ensure_shape(self.staged.read_value(), [layout.size])
        with tf.control_dependencies(self._check_finite(staged)):
            swapped = self.dense.values.assign(staged)
        with tf.control_dependencies([swapped]):
            marked = [self.served.assign(upload), self.state.dense_step.assign(newest)]
        with tf.control_dependencies(marked):
            return tf.identity(newest)

    def _check_finite(self, staged: Tensor) -> list[tf.Operation]:
        """Returns operations that fail for weights that are not finite."""
        layout, checks = self.dense.layout, []
        message = f"{KEY}: {refusals.NOT_FINITE}. The first variable that is not:"
        mine = {p: q for p, q in layout.places.items() if q.dtype == "float32"}
        if mine:
            end = max(place.offset + place.room for place in mine.values())
            is_bad = ~tf.math.is_finite(staged[:end])
            first = tf.where(is_bad)[:1, 0]
            offsets = tf.constant([place.offset for place in mine.values()], tf.int64)
            owner = tf.searchsorted(offsets, first, side="right") - 1
            checks.append(
                tf.debugging.Assert(
                    ~tf.reduce_any(is_bad), [message, tf.gather(list(mine), owner)]
                )
            )
        others = [
            path
            for path, place in layout.places.items()
            if place.dtype != "float32" and tf.as_dtype(place.dtype).is_floating
        ]
        for path, value in self.dense.cut(staged, others).items():
            checks.append(
                tf.debugging.Assert(
                    tf.reduce_all(tf.math.is_finite(value)), [message, path]
                )
            )
        return checks


def _check_place(offset: Tensor, count: Tensor, size: Tensor) -> list[tf.Operation]:
    """Returns operations that fail for values beyond the vector."""
    return [
        tf.debugging.Assert(
            (offset >= 0) & (offset + count <= size),
            [
                f"{KEY}: values must be inside the vector. Offset, number and size:",
                offset,
                count,
                size,
            ],
        )
    ]


class UpdateDense(signatures.Signature):
    """The signature that replaces the dense weights."""

    joins_rows = False

    def __init__(self, updates: DenseUpdates) -> None:
        self.specs = {
            "values": tf.TensorSpec([None], tf.float32, name="values"),
            "offset": tf.TensorSpec([], tf.int64, name="offset"),
            "upload": tf.TensorSpec([], tf.int64, name="upload"),
            "is_last": tf.TensorSpec([], tf.bool, name="is_last"),
            **update_state.SPECS,
        }
        self._updates = updates

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        return self._updates.apply(**tensors)

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class; the request changes nothing."""
        del sample
        return {
            "values": np.zeros([0], np.float32),
            "offset": np.array(0, np.int64),
            "upload": np.array(0, np.int64),
            "is_last": np.array(False),
            "step": np.array(0, np.int64),
            "token": np.array(0, np.int64),
            "lineage": np.array(self._updates.state.lineage.numpy(), object),
            "newest": np.array(0, np.int64),
        }

    def expected(
        self, sample: Mapping[str, Tensor], answer: signatures.Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        del sample, answer
        step = self._updates.state.step.numpy()
        size = np.int64(self._updates.dense.layout.size)
        return {"received": np.int64(0), "size": size, "dense_step": step, "step": step}


class ReadDense(signatures.Signature):
    """The signature that reads the dense weights."""

    joins_rows = False

    def __init__(self, updates: DenseUpdates) -> None:
        self.specs = {
            "offset": tf.TensorSpec([], tf.int64, name="offset"),
            "size": tf.TensorSpec([], tf.int64, name="size"),
        }
        self._updates = updates

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        return self._updates.read(**tensors)

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class."""
        del sample
        return {"offset": np.array(0, np.int64), "size": np.array(self._some, np.int64)}

    def expected(
        self, sample: Mapping[str, Tensor], answer: signatures.Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        del sample, answer
        step = self._updates.state.step.numpy()
        values = self._updates.dense.values.numpy()[: self._some]
        return {"values": values, "upload": np.int64(0), "dense_step": step}

    @property
    def _some(self) -> int:
        """How many numbers to verify; bits of integers may look like NaN."""
        places = self._updates.dense.layout.places.values()
        ends = [p.offset + p.room for p in places if p.dtype == "float32"]
        return min(_VERIFIED, max(ends, default=0))
