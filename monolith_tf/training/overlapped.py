"""Steps that overlap: rows are transferred while the model computes.

With `i` for the step, the body of the loop is

    plain            pull i;               compute i; push i
    prefetch         pull i + 1;           compute i; push i
    deferred push    push i - 1; pull i + 1; compute i
    both             pull i + 1; push i - 1; compute i

and operations that do not depend on each other run at the same time. So in rows that a
step shares with the step before, it misses that step's update (with both, the updates
of the two steps before). Dense variables always have all updates of the worker's steps.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from monolith_tf.distribute.spec import PipelineSpec
from monolith_tf.training import step as step_lib
from monolith_tf.types import Nest
from monolith_tf.types import Tensor


class _Pending(NamedTuple):
    """Gradients of rows that are not pushed yet."""

    held: step_lib.PulledBatch
    rows: dict[str, Tensor]
    step: Tensor
    is_due: Tensor


class _State(NamedTuple):
    result: step_lib.LoopResult
    held: step_lib.PulledBatch
    more: Tensor  # Whether a step on `held` is due.
    pending: Any  # `_Pending`, or `()`.


def loop(
    step: step_lib.TrainStep,
    iterator: tf.data.Iterator,
    steps: Tensor,
    now_secs: Tensor,
    spec: PipelineSpec,
) -> step_lib.LoopResult:
    """Takes up to `steps` steps, and finishes all of them.

    Args:
      step: The step function.
      iterator: Yields a batch's number, as for `TrainStep.__call__`, and its columns.
      steps: How many steps, at least 1; fewer are taken if the data end.
      now_secs: Seconds since 1970.
      spec: What overlaps.
    """
    if not spec.prefetch and not spec.deferred_push:
        return _in_order(step, iterator, steps, now_secs)
    optional = iterator.get_next_as_optional()
    return _cond(
        optional.has_value(),
        lambda: _overlap(step, iterator, optional, steps, now_secs, spec),
        step.no_result,
    )


def _overlap(
    step: step_lib.TrainStep,
    iterator: tf.data.Iterator,
    optional: tf.experimental.Optional,
    steps: Tensor,
    now_secs: Tensor,
    spec: PipelineSpec,
) -> step_lib.LoopResult:
    """As `loop`, from the first batch on."""
    first = _pull(step, optional, now_secs)
    begin = _State(step.no_result(), first, tf.constant(True), ())
    if spec.deferred_push:
        rows = {name: tf.zeros_like(value) for name, value in first.pulled.rows.items()}
        nothing = _Pending(first, rows, step.step.read_value(), tf.constant(False))
        begin = begin._replace(pending=nothing)

    def next_held(state: _State) -> tuple[step_lib.PulledBatch, Tensor]:
        def nothing() -> tuple[step_lib.PulledBatch, Tensor]:
            return state.held, tf.constant(False)

        def pull() -> tuple[step_lib.PulledBatch, Tensor]:
            optional = iterator.get_next_as_optional()
            return _cond(
                optional.has_value(),
                lambda: (_pull(step, optional, now_secs), tf.constant(True)),
                nothing,
            )

        return _cond(state.result.steps + 1 < steps, pull, nothing)

    # In a `tf.function`, operations on the same variables run in program order, and all
    # others in parallel. So whether a pull sees a push depends only on which of them is
    # called first, and `compute`, which touches no rows, overlaps with both.
    def body(state: _State) -> _State:
        held, pending = state.held, state.pending
        following = next_held(state) if spec.prefetch else None
        if spec.deferred_push:
            _push(step, pending)
        if following is None:
            following = next_held(state)
        made = step.compute(held)
        is_finite = tf.math.is_finite(made.loss)
        now = step.step.read_value()
        tf.cond(is_finite, lambda: _update(step, held, made), lambda: tf.no_op())
        made_rows = {
            name: made.rows.get(name, tf.zeros_like(value))
            for name, value in held.pulled.rows.items()
        }
        computed = _Pending(held, made_rows, now, is_finite)
        if spec.deferred_push:
            pending = computed
        else:
            _push(step, computed)
        return _State(state.result.plus(made), *following, pending)

    def goes_on(state: _State) -> Tensor:
        return (state.result.steps < steps) & state.result.finite & state.more

    end = _while(goes_on, body, begin)
    if spec.deferred_push:
        _push(step, end.pending)
    return end.result


def _in_order(
    step: step_lib.TrainStep,
    iterator: tf.data.Iterator,
    steps: Tensor,
    now_secs: Tensor,
) -> step_lib.LoopResult:
    """Takes one step after another."""

    def body(
        state: tuple[step_lib.LoopResult, Tensor],
    ) -> tuple[step_lib.LoopResult, Tensor]:
        result, _ = state
        optional = iterator.get_next_as_optional()

        def take() -> step_lib.LoopResult:
            number, columns = optional.get_value()
            return result.plus(step(columns, now_secs, number))

        more = optional.has_value()
        return _cond(more, take, lambda: result), more

    def goes_on(state: tuple[step_lib.LoopResult, Tensor]) -> Tensor:
        result, more = state
        return (result.steps < steps) & result.finite & more

    result, _ = _while(goes_on, body, (step.no_result(), tf.constant(True)))
    return result


def _pull(
    step: step_lib.TrainStep, optional: tf.experimental.Optional, now_secs: Tensor
) -> step_lib.PulledBatch:
    number, columns = optional.get_value()
    return step.pull(columns, now_secs, number)


def _update(
    step: step_lib.TrainStep, held: step_lib.PulledBatch, made: step_lib.Gradients
) -> tf.Operation:
    step.update_dense(held, made)
    return tf.no_op()


def _push(step: step_lib.TrainStep, pending: _Pending) -> None:
    def push() -> tf.Operation:
        step.push(pending.held, pending.rows, pending.step)
        return tf.no_op()

    tf.cond(pending.is_due, push, lambda: tf.no_op())


def _cond(
    predicate: Tensor, true: Callable[[], Nest], false: Callable[[], Nest]
) -> Nest:
    """`tf.cond` over structures that hold composite tensors, such as ragged ones."""
    structure = false()
    flat = tf.cond(
        predicate,
        lambda: tf.nest.flatten(true(), expand_composites=True),
        lambda: tf.nest.flatten(structure, expand_composites=True),
    )
    return tf.nest.pack_sequence_as(structure, flat, expand_composites=True)


def _while(
    goes_on: Callable[..., Tensor], body: Callable[..., Nest], begin: Nest
) -> Nest:
    """`tf.while_loop` over structures, whose tensors may change their first axis."""
    first = tf.nest.flatten(begin, expand_composites=True)
    shapes = [t.shape if not t.shape.rank else [None, *t.shape[1:]] for t in first]

    def pack(flat: Nest) -> Nest:
        return tf.nest.pack_sequence_as(begin, list(flat), expand_composites=True)

    flat = tf.while_loop(
        lambda *flat: goes_on(pack(flat)),
        lambda *flat: tf.nest.flatten(body(pack(flat)), expand_composites=True),
        first,
        shape_invariants=[tf.TensorShape(shape) for shape in shapes],
    )
    return pack(flat)
