"""Updates rows during the backward pass, so that any Keras loop trains them.

The anchor, a scalar weight whose value is unused, connects the rows to the tape:

    anchor --> gate --> rows of a call --> ... --> loss
                   `--> rows of another call --> ...

The backward pass keeps the gradient of each call's rows. It reaches the gate after all
of them, and the gate pushes their sum: one update per row and step, however many calls
read the row. A tape runs the backward pass of everything it recorded, so the gate
pushes only if the anchor is one of the sources of the gradient.
"""

import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any
from typing import ClassVar
from typing import NamedTuple
from typing import TypeAlias

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import imperative_grad
from tensorflow.python.eager import record  # No public API for what a tape watches.

from monolith_tf.embedding.keras.rows import KeyedRows
from monolith_tf.embedding.lookup import expansion
from monolith_tf.embedding.lookup.pulled import PulledShard
from monolith_tf.embedding.placement import HOST
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.bindable import Packed
from monolith_tf.embedding.shard.scatter import scatter
from monolith_tf.gradients import custom_gradient
from monolith_tf.gradients import forget_gradients
from monolith_tf.types import Tensor

_TICKETS_KEPT = 1 << 12
_NO_LIMIT = 2**63 - 1
_GRADIENT_OF_TAPE = imperative_grad.imperative_grad.__code__
_UNREACHABLE = ("_CondGradFuncGraph", "_WhileBodyGradFuncGraph")


class RowTraining:
    """Trains rows with the gradients of reads.

    Args:
      name: Name of the table in errors.
      rows: The rows.
      anchor: A trainable float32 scalar.
      step: Counts the updates; an int64 scalar variable.
      is_half: Returns whether the model computes in half precision. Gradients are then
        scaled, and the loss must include `scale_probe`.
    """

    def __init__(
        self,
        name: str,
        rows: KeyedRows,
        *,
        anchor: tf.Variable,
        step: tf.Variable,
        is_half: Callable[[], bool],
    ) -> None:
        self._name = name
        self._rows = rows
        self._anchor = anchor
        self._is_half = is_half
        with tf.device(HOST):
            self._next_ticket = tf.Variable(1, dtype=tf.int64, trainable=False)
            updates = _Updates(name, rows, step)
            self._updates = Packed(updates, order=rows.packed)
        # Each thread runs its own steps.
        self._local = threading.local()
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        weakref.finalize(self, forget_gradients, self._graphs).atexit = False

    def read(self, keys: Tensor, *, insert: bool = True) -> Tensor:
        """Returns rows of distinct keys, `[n, dim]`, whose gradient updates them.

        Args:
          keys: `[n]`, int64.
          insert: Whether to make missing rows now; otherwise when their gradient
            arrives.
        """
        gate = self._open_gate()
        gate.is_read = True

        @custom_gradient
        def read(opened: Tensor) -> Any:
            del opened
            found = self._rows.lookup(keys, insert=insert)

            def keep(gradient: Tensor) -> Tensor:
                gradient = tf.convert_to_tensor(gradient)
                gate.keep(_Part(found, gradient, has_rows=insert))
                return tf.zeros([])

            return found.weights, keep

        return read(gate.opened)

    def is_recorded(self) -> bool:
        """Returns whether a tape records reads, so that a gradient may follow.

        `tf.recompute_grad` stops recording during a call, and repeats the call for its
        gradient. There, the result depends on the tape around it.
        """
        if pywrap_tfe.TFE_Py_TapeSetIsStopped():
            pywrap_tfe.TFE_Py_TapeSetRestartOnThread()
            try:
                return record.should_record_backprop([self._anchor.read_value()])
            finally:
                pywrap_tfe.TFE_Py_TapeSetStopOnThread()
        if not record.could_possibly_record():
            return False
        return record.should_record_backprop([self._open_gate().opened])

    def scale_probe(self) -> Tensor | None:
        """Returns a loss of zero whose gradient is the scale of the loss.

        Returns None if no training call is on the tape.
        """
        gate = self._gate
        if gate is None or not gate.is_open() or not gate.is_read:
            return None

        @custom_gradient
        def probe(opened: Tensor) -> Any:
            def keep(scale: Tensor) -> Tensor:
                gate.keep_scale(scale)
                return tf.zeros([])

            return tf.zeros_like(opened), keep

        return probe(gate.opened)

    @property
    def _gate(self) -> "_Gate | None":
        gate: _Gate | None = getattr(self._local, "gate", None)
        return gate

    def _open_gate(self) -> "_Gate":
        gate = self._gate
        if gate is None or not gate.is_open():
            gate = _Gate(self._anchor, self._pusher(self._draw_ticket()))
            self._local.gate = gate
            self._graphs.add(_graph())
        return gate

    def _pusher(self, ticket: Tensor) -> "_Push":
        # A graph may outlive its model, and must not keep the rows alive.
        this = weakref.ref(self)

        def push(parts: list[_Part], scales: list[Tensor]) -> Tensor:
            training = this()
            if training is None:
                raise RuntimeError(
                    "The embedding layer that this gradient belongs to was deleted. "
                    "Keep the layer, or its model, for as long as it is trained."
                )
            return training._push(ticket, parts, scales)

        return push

    def _draw_ticket(self) -> Tensor:
        """Returns a number unique to this step among all threads."""
        with tf.device(HOST):
            return tf.raw_ops.ResourceCountUpTo(
                resource=self._next_ticket.handle, limit=_NO_LIMIT, T=tf.int64
            )

    def _push(
        self, ticket: Tensor, parts: list["_Part"], scales: list[Tensor]
    ) -> Tensor:
        """Updates rows; returns the anchor's gradient, which waits for the update."""
        if type(tf.compat.v1.get_default_graph()).__name__ in _UNREACHABLE:
            raise NotImplementedError(
                f"Embedding `{self._name}` cannot learn from a call inside `tf.cond`, "
                "`tf.while_loop` or `tf.map_fn`. Call it outside, on all of the keys."
            )
        is_half = self._is_half()
        if is_half and not scales:
            raise ValueError(
                f"Embedding `{self._name}` must know the loss scale in half precision. "
                "Received: a loss without the layer's own term. Add "
                "`sum(model.losses)` to the loss before it is scaled, as `fit` does."
            )
        with tf.device(HOST):
            found, gradient = self._merged(parts)
            if not scales:
                return self._updates.call("push", ticket, found, gradient)
            # Several probes: a loop may weight penalties down, which lowers some of
            # the gradients. The largest is the scale of the loss.
            scale = tf.reduce_max(tf.stack(scales)) if scales[1:] else scales[0]
            method = "push_half" if is_half else "push_scaled"
            return self._updates.call(method, ticket, found, gradient, scale)

    def _merged(self, parts: list["_Part"]) -> tuple[PulledShard, Tensor]:
        """Returns distinct keys of all calls, and the sum of each key's gradients."""
        # One call has distinct keys and their rows. Several calls may share keys, so
        # find the rows of the distinct keys again; a call without inserts may have left
        # some rows to make.
        have_rows = all(part.has_rows for part in parts)
        if len(parts) == 1 and have_rows:
            return parts[0].found, parts[0].gradient
        keys, places = tf.unique(tf.concat([part.found.ids for part in parts], 0))
        gradients = tf.concat([part.gradient for part in parts], 0)
        found = self._rows.lookup(keys, insert=not have_rows)
        return found, expansion.sum_by_row(gradients, places, tf.size(keys))


class _Updates(Bindable):
    """The update of a step; traced once for all layers with the same layout.

    Args:
      name: Name of the table in errors.
      rows: The rows.
      step: Counts the updates.
    """

    own: ClassVar[tuple[str, ...]] = "_rows", "_step", "_used_tickets", "_is_used"

    def __init__(self, name: str, rows: KeyedRows, step: tf.Variable) -> None:
        self._rows = rows
        self._step = step
        message = (
            f"Embedding `{name}` has applied the gradient of this step already: its "
            "rows are updated while a gradient is computed. Compute all gradients of a "
            "step by one call of `tape.gradient`."
        )
        self._is_used = tf.Variable(message, trainable=False)
        self._used_tickets = tf.Variable(
            tf.zeros([_TICKETS_KEPT], tf.int64), trainable=False
        )

    # The following methods are called by `Packed.call`. Each returns the anchor's
    # gradient, which waits for the update: once the gradient is computed, the rows have
    # been updated and the step is counted.

    def push(self, ticket: Tensor, found: PulledShard, gradient: Tensor) -> Tensor:
        """Updates rows."""
        with tf.control_dependencies([self._use(ticket)]):
            return self._update(found, tf.identity(gradient))

    def push_scaled(
        self, ticket: Tensor, found: PulledShard, gradient: Tensor, scale: Tensor
    ) -> Tensor:
        """Updates rows with the gradient of a loss that may be scaled."""
        with tf.control_dependencies([self._use(ticket)]):
            is_scaled = scale > 1.0
        gradient = tf.where(is_scaled, gradient / scale, gradient)
        return self._update_if(_are_finite(gradient) | ~is_scaled, found, gradient)

    def push_half(
        self, ticket: Tensor, found: PulledShard, gradient: Tensor, scale: Tensor
    ) -> Tensor:
        """Updates rows with the gradient of a scaled loss in half precision."""
        with tf.control_dependencies([self._use(ticket)]):
            gradient = gradient / scale
        return self._update_if(_are_finite(gradient), found, gradient)

    def _update_if(
        self, is_right: Tensor, found: PulledShard, gradient: Tensor
    ) -> Tensor:
        return tf.cond(
            is_right,
            lambda: self._update(found, gradient),
            # A NaN gradient makes the loss-scaling optimizer skip this step too.
            lambda: tf.constant(float("nan")),
        )

    def _update(self, found: PulledShard, gradient: Tensor) -> Tensor:
        # TensorFlow does not order ops on variables behind a `Packed` by itself: read
        # the step, update the rows with it, then count it.
        step = self._step.read_value()
        with tf.control_dependencies([step]):
            updated = self._rows.update(found, gradient, step)
        with tf.control_dependencies([updated]):
            counted = self._step.assign_add(1)
        with tf.control_dependencies([counted]):
            return tf.zeros([])

    def _use(self, ticket: Tensor) -> tf.Operation:
        """Fails if the gradient of this step was applied before."""
        # Tickets only increase, so a ring of the latest ones is enough. A slot with
        # this ticket or a later one means that this one is used, or too old to know.
        place = (ticket % _TICKETS_KEPT)[tf.newaxis]
        is_new = self._used_tickets.sparse_read(place)[0] < ticket
        message = self._is_used.read_value()
        check = tf.raw_ops.Assert(condition=is_new, data=[message])
        with tf.control_dependencies([check]):
            return scatter(self._used_tickets, place, ticket[tf.newaxis])


def _are_finite(gradient: Tensor) -> Tensor:
    return tf.reduce_all(tf.math.is_finite(gradient))


class _Part(NamedTuple):
    """The gradient of one call's rows, `[n, dim]`; some rows may not exist yet."""

    found: PulledShard
    gradient: Tensor
    has_rows: bool


_Push: TypeAlias = Callable[[list[_Part], list[Tensor]], Tensor]


class _Gate:
    """The node between the anchor and all reads of one step.

    Attributes:
      is_read: Whether rows were read through it.

    Args:
      anchor: The variable on the tape.
      push: Takes the kept gradients and returns the anchor's gradient.
    """

    def __init__(
        self,
        anchor: tf.Variable,
        push: _Push,
    ) -> None:
        self._push = push
        self._anchor = anchor
        self._graph = _graph()
        self._is_pushed = False
        self.is_read = False
        # Separate lists per graph: a function's gradient may be built several times.
        self._kept: weakref.WeakKeyDictionary[Any, tuple[list, list]] = (
            weakref.WeakKeyDictionary()
        )

        @custom_gradient
        def open_(value: Tensor) -> Any:
            return tf.identity(value), self._close

        self.opened = open_(anchor.read_value())

    def is_open(self) -> bool:
        """Returns whether another call may share this gate."""
        if self._is_pushed or self._graph is not _graph():
            return False
        if record.should_record_backprop([self.opened]):
            return True
        # A function traced without a tape may later be differentiated as a whole.
        return self._graph is not _EAGER and not record.could_possibly_record()

    def keep(self, part: _Part) -> None:
        """Keeps the gradient of a call's rows."""
        self._lists()[0].append(part)

    def keep_scale(self, scale: Tensor) -> None:
        """Keeps the gradient of the probe."""
        self._lists()[1].append(scale)

    def _lists(self) -> tuple[list[_Part], list[Tensor]]:
        return self._kept.setdefault(_graph(), ([], []))

    def _close(self, upstream: Tensor) -> Tensor:
        del upstream
        parts, scales = self._kept.pop(_graph(), ([], []))
        if not _is_asked_for(self._anchor):
            return tf.zeros([])
        # A backward pass in the same graph ends the step, and the next call opens a new
        # gate. In another graph it belongs to a function's gradient, which TensorFlow
        # may build several times.
        self._is_pushed |= self._graph is _graph()
        if not parts:
            return tf.zeros([])
        pushed = self._push(parts, scales)
        if _is_asked() and record.should_record_backprop([self.opened]):
            return _without_gradient(self.opened, pushed)
        return pushed


def _without_gradient(opened: Tensor, pushed: Tensor) -> Tensor:
    """Returns the anchor's gradient where an outer tape records it too."""

    @custom_gradient
    def hold(opened: Tensor) -> Any:
        def refuse(upstream: Tensor) -> Tensor:
            if _is_asked():
                raise NotImplementedError(
                    "The loss depends on the gradient of an embedding layer's weights, "
                    "and a gradient of that is asked for. Rows learn by first-order "
                    "gradients only. Leave the layer's `trainable_variables` out of "
                    "the inner `tape.gradient`; its outputs may be in it."
                )
            return tf.zeros_like(upstream)

        return tf.identity(pushed), refuse

    return hold(opened)


def _is_asked() -> bool:
    """Whether `tape.gradient` is computing the current gradient."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not _GRADIENT_OF_TAPE:
        frame = frame.f_back
    return frame is not None


def _is_asked_for(variable: tf.Variable) -> bool:
    """Whether a variable is a source of the gradient being computed.

    The backward pass does not know its sources, so this looks for them in the calls of
    `tape.gradient` on the stack. If there are none, as when a function is
    differentiated as a whole, the answer is True.
    """
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is _GRADIENT_OF_TAPE:
            sources = frame.f_locals["sources"]
            if not any(source is variable.handle for source in sources):
                return False
        frame = frame.f_back
    return True


class _Eager:
    """Replaces the graph in eager execution."""


_EAGER = _Eager()


def _graph() -> Any:
    return _EAGER if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
