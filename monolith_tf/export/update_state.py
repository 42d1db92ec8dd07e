"""What the signatures that change a served model have in common: state and rules."""

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from monolith_tf.export import refusals
from monolith_tf.lineage import Lineage
from monolith_tf.types import Tensor

_MOST_STEPS = 1 << 40
_LOCK = "monolith_tf_update_embeddings"
_NUMBER = r"^(?:(\d{1,15})\.)?.*$"


class Sender(NamedTuple):
    """What each request says of its sender.

    Attributes:
      step: The training step that the model reaches with the request, at most `newest`;
        0 if more follow.
      token: The token that an earlier request returned; refused if the model was loaded
        again or set back since. 0 for none.
      lineage: The sender's `lineage.Lineage`, as a string; refused if the served values
        are not part of its past.
      newest: The step of its values; refused if the model has values of a later one of
        the same line, so of two senders the one with older values is refused.
    """

    step: Tensor
    token: Tensor
    lineage: Tensor
    newest: Tensor


SPECS = {
    "step": tf.TensorSpec([], tf.int64, name="step"),
    "token": tf.TensorSpec([], tf.int64, name="token"),
    "lineage": tf.TensorSpec([], tf.string, name="lineage"),
    "newest": tf.TensorSpec([], tf.int64, name="newest"),
}
"""The inputs of a `Sender`."""


class UpdateState(tf.Module):
    """Whose values a model serves, and how new they are.

    Attributes:
      step: The step that all values have reached.
      newest: The newest step of any value; above `step` while an update is under way.
      lineage: The lineage of the job that trained them.
      token: Unique to a start of the server, and to the time since `set_back`; 0 before
        the first request.
      dense_step: The step of the dense weights.

    Args:
      step: The global step at which the values were trained.
      lineage: The lineage of the job that trained them.
    """

    def __init__(self, step: int, lineage: Lineage) -> None:
        super().__init__(name="updates")
        self.step = scalar(step)
        self.newest = scalar(step)
        self.lineage = tf.Variable(str(lineage), dtype=tf.string, trainable=False)
        self.token = scalar(0)  # A time in microseconds.
        self.dense_step = scalar(step)

    def checked_steps(self, key: str, sender: Sender) -> list[tf.Operation]:
        """Returns operations that fail for steps that no training reaches."""
        steps = tf.stack([sender.step, sender.newest])
        counted = tf.debugging.Assert(
            tf.reduce_all((steps >= 0) & (steps < _MOST_STEPS)),
            [f"{key}: steps must be from 0 to 2^40. Received step and newest:", steps],
        )
        with tf.control_dependencies([counted]):
            reached = tf.debugging.Assert(
                sender.step <= sender.newest,
                [
                    f"{key}: `step` must not be above `newest`. Received both:",
                    sender.step,
                    sender.newest,
                ],
            )
        return [counted, reached]

    def checked_token(self, key: str, token: Tensor) -> tuple[Tensor, tf.Operation]:
        """Returns the token, made if there is none, and an operation that compares it.

        Needs the lock.
        """
        before = self.token.read_value()
        mine = tf.where(before == 0, now(), before)
        same = tf.debugging.Assert(
            (token == 0) | (token == mine),
            [f"{key}: the model was loaded again {refusals.RELOADED}", token],
        )
        return mine, same

    def related(
        self, key: str, lineage: Tensor, newest: Tensor, changes: Tensor
    ) -> list[tf.Operation]:
        """Returns operations that fail unless `lineage.accepts`.

        They also fail for values older than the served ones of the same line.
        """
        served = self.lineage.read_value()
        mine, theirs = tf.strings.split(served, ","), tf.strings.split(lineage, ",")
        size = tf.size(mine)
        # A model without a lineage can only be read.
        is_question = (lineage == "") & ~changes
        known = tf.debugging.Assert(
            _begins(theirs, mine) & ((served != "") | is_question),
            [f"{key}: {refusals.OTHER_LINEAGE}:", served],
        )
        # The step at which the sender left the served line; the largest if it did not.
        ends = tf.strings.split(theirs[size : size + 1], "@").values[1:]
        left = tf.concat([tf.strings.to_number(ends, tf.int64), [tf.int64.max]], 0)
        with tf.control_dependencies([known]):
            behind = tf.debugging.Assert(
                self.newest <= left[0],
                [
                    f"{key}: {refusals.WENT_BACK}. Their step, and where:",
                    self.newest,
                    left[0],
                ],
            )
        with tf.control_dependencies([behind]):
            is_latest = tf.debugging.Assert(
                (served != lineage) | ~changes | (newest >= self.newest),
                [
                    f"{key}: {refusals.LATER_CHECKPOINT}. Its step, and "
                    "that of the request:",
                    self.newest,
                    newest,
                ],
            )
        return [known, behind, is_latest]

    def moved(
        self, sender: Sender, token: Tensor, changes: Tensor
    ) -> tuple[Tensor, list[tf.Operation]]:
        """Notes an update; returns the step reached, and the writes."""
        reached = tf.maximum(self.step, sender.step)
        highest = tf.reduce_max([self.newest, sender.newest, sender.step])
        return reached, [
            self.token.assign(token),
            self.step.assign(reached),
            self.lineage.assign(tf.where(changes, sender.lineage, self.lineage)),
            self.newest.assign(tf.where(changes, highest, self.newest)),
        ]

    def set_back(self, key: str, sender: Sender, confirm: Tensor) -> dict[str, Tensor]:
        """Lets an older state be sent; see `roll_back.RollBack`."""
        with tf.control_dependencies(self.checked_steps(key, sender)), locked() as lock:
            mine, same = self.checked_token(key, sender.token)
            with tf.control_dependencies([same]):
                may = self._may_go_back(key, sender.lineage, confirm)
            before = self.step.read_value()
            token = tf.where(confirm, tf.maximum(now(), mine + 1), mine)
            with tf.control_dependencies([*may, before]):
                step = tf.where(confirm, tf.constant(0, tf.int64), before)
                written = [
                    variable.assign(tf.where(confirm, value, variable))
                    for variable, value in (
                        (self.lineage, sender.lineage),
                        (self.newest, sender.newest),
                        (self.dense_step, tf.constant(0, tf.int64)),
                        (self.step, step),
                    )
                ]
                written.append(self.token.assign(token))
            lock.release(written)
            return lock.after({"before": before, "step": step, "token": token})

    def _may_go_back(
        self, key: str, lineage: Tensor, confirm: Tensor
    ) -> list[tf.Operation]:
        """Returns operations that fail unless `lineage.may_go_back`."""
        served = self.lineage.read_value()
        mine, theirs = tf.strings.split(served, ","), tf.strings.split(lineage, ",")
        is_newer = _number(theirs[-1]) > _number(mine[-1])
        may = _begins(theirs, mine) | (tf.equal(theirs[0], mine[0]) & is_newer)
        is_question = (lineage == "") & ~confirm
        return [
            tf.debugging.Assert(
                may & ((served != "") | is_question),
                [f"{key}: {refusals.NO_WAY_BACK}:", served],
            )
        ]


class Lock:
    """The lock that all signatures which change the model share, while traced."""

    def __init__(self, held: Tensor) -> None:
        self._held = held
        self._released: list[tf.Operation] = []

    def release(self, after: Sequence[tf.Operation]) -> None:
        """Unlocks after some operations."""
        with tf.control_dependencies(after):
            self._released = [tf.raw_ops.ConsumeMutexLock(mutex_lock=self._held)]

    def after(self, answer: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns an answer that waits for the release."""
        with tf.control_dependencies(self._released):
            return {name: tf.identity(value) for name, value in answer.items()}


@contextlib.contextmanager
def locked() -> Iterator[Lock]:
    """Operations that are made in this scope wait for the lock.

    Operations of a graph may run in any order, so each stage waits for the one before:
    the checks, the lock, the writes, the step, the release. An assertion that fails
    before the first write leaves the model unchanged; the lock is then released by
    itself.
    """
    # Two requests must not take the same spare row. `tf.CriticalSection` would create
    # its lock outside the graph; a server finds this one by its name.
    mutex = tf.raw_ops.MutexV2(shared_name=_LOCK)
    held = tf.raw_ops.MutexLock(mutex=mutex)
    with tf.control_dependencies([held]):
        yield Lock(held)


def now() -> Tensor:
    """Returns the time in microseconds."""
    return tf.cast(tf.timestamp() * 1e6, tf.int64)


def scalar(value: int) -> tf.Variable:
    """Returns a variable of a whole number."""
    return tf.Variable(value, dtype=tf.int64, trainable=False)


def _begins(branches: Tensor, start: Tensor) -> Tensor:
    """Whether a lineage begins with another; both are split into branches."""
    size = tf.size(start)
    return (tf.size(branches) >= size) & tf.reduce_all(
        tf.equal(start[: tf.size(branches)], branches[:size])
    )


def _number(branch: Tensor) -> Tensor:
    """Returns a branch's `number`, as `lineage.Branch` does."""
    digits = tf.strings.regex_replace(branch, _NUMBER, r"\1")
    return tf.strings.to_number(tf.strings.join(["0", digits]), tf.int64)
