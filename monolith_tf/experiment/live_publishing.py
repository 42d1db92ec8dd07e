"""Publishes what a running job learns, in the background."""

import dataclasses
import functools
import time

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf import lineage as lineage_lib
from monolith_tf import variable_paths
from monolith_tf.experiment import golden_sample
from monolith_tf.export import flat_dense
from monolith_tf.export.publish_spec import PublishSpec
from monolith_tf.serving import guard
from monolith_tf.serving import live_source
from monolith_tf.serving import publishing
from monolith_tf.serving import server_update
from monolith_tf.serving import tls as tls_lib
from monolith_tf.serving import undo_log
from monolith_tf.training import actions
from monolith_tf.training import run as run_lib

_IDLE_SECS = 10.0  # After which a server that has everything is asked for its step.
_LONGEST_WAIT_SECS = 30.0
_LONGEST_REFUSAL = 60.0
_COPIED_SECS = 30.0  # A server that was away for longer reads rows during training.
_INTERRUPTED_SECS = 5.0
_POLL_SECS = 0.05


@dataclasses.dataclass
class _Server:
    """What is known of one server.

    Attributes:
      step: The step that it has reached; None if not known.
      last: The step that it was last known to have reached.
      sending: The step of the values that it is being sent; None if there are none.
      taken: When the values of that step were copied, by `time.monotonic`.
      heard: When it last answered.
      due: When it gets the next update.
      wait: Seconds until the next attempt after a failure; 0 if there was none.
      failure: The last failure that was logged.
    """

    taken: float
    step: int | None = None
    last: int | None = None
    sending: int | None = None
    heard: float = 0.0
    due: float = 0.0
    wait: float = 0.0
    failure: str = ""


@dataclasses.dataclass
class Sent:
    """What was sent since the last record.

    Attributes:
      updates: Updates that a server took.
      rows: Rows sent.
      removed: Ids whose rows were removed.
      inserted: Ids that took one of the spare rows.
      clipped: Rows sent with clipped numbers.
      dense: Dense weights sent.
      refusals: Updates that the guard stopped.
      failures: Updates that failed.
      seconds: Longest time from the copy of the values until a server had them.
      copy_secs: Time for which training rested while values were copied.
    """

    updates: int = 0
    rows: int = 0
    removed: int = 0
    inserted: int = 0
    clipped: int = 0
    dense: int = 0
    refusals: int = 0
    failures: int = 0
    seconds: float = 0.0
    copy_secs: float = 0.0


class LivePublishing:
    """Sends the changes of a running job to model servers.

    What a server lacks is copied between two steps, and sent by a thread while training
    goes on. In a cluster the parameter servers read and send their rows themselves. A
    server that is slow, away or refuses delays neither training nor others.

    Args:
      spec: The servers.
      run: The run.
      golden: Keeps the golden rows of a guarded job.
    """

    def __init__(
        self,
        spec: PublishSpec,
        run: run_lib.Run,
        golden: golden_sample.GoldenSample | None = None,
    ) -> None:
        self._spec = spec
        self._run = run
        self._golden = golden
        self._hold = undo_log.hold_path(run.model_dir)
        self._is_on_hold = False
        self._refused: object = None  # The last source that was refused.
        self._lineage = lineage_lib.of_state(run.static_state)
        self._rows = live_source.LiveRows(
            run.model_dir,
            run.step.network.store,
            functools.partial(_dense, run.step.network.model),
            self._lineage,
        )
        self._source: live_source.LiveSource | None = None
        self._publisher = publishing.Publisher(
            run.model_dir,
            spec.to,
            name=spec.name,
            patience_secs=0.0,
            guard=spec.guard,
            tls=None if spec.tls is None else tls_lib.Tls(**vars(spec.tls)),
            source=self._taken,
        )
        now = time.monotonic()
        self._servers = {address: _Server(taken=now) for address in spec.to}
        self._begun: dict[str, float] = {}  # Server -> when its values were copied.
        self._next = now
        self._wait = 0.0  # Seconds between updates while they are refused.
        self.sent = Sent()

    def tick(self) -> None:
        """Starts an update if it is time; call it between steps."""
        if self._golden is not None:
            self._golden.tick()
        if time.monotonic() >= self._next:
            self._round()

    def finish(self) -> None:
        """Sends the last values, and waits for the servers to take them.

        Not for long if the run was interrupted: it is resumed, and goes on publishing.
        """
        wait = self._spec.closing_secs
        if self._run.progress.is_interrupted:
            wait = min(wait, _INTERRUPTED_SECS)
        end = time.monotonic() + wait
        step = self._run.progress.step
        for server in self._servers.values():
            server.due = 0.0
        while True:
            self._round()
            behind = [a for a, s in self._servers.items() if s.step != step]
            is_refused = self._source is not None and self._source is self._refused
            if not behind or is_refused or time.monotonic() > end:
                break
            time.sleep(_POLL_SECS)
        self.record()
        if behind:
            logging.warning(
                "%s did not take the last values of the job. Publish its checkpoint: "
                "`monolith-tf publish MODEL_DIR --to HOST:PORT`.",
                ", ".join(behind),
            )

    def close(self) -> None:
        """Cancels the updates in progress."""
        self._publisher.close()

    def ages(self) -> dict[str, float]:
        """Returns server -> seconds since the values that it has were the newest."""
        now = time.monotonic()
        return {
            address: 0.0
            if server.step == self._run.progress.step
            else round(now - server.taken, 3)
            for address, server in self._servers.items()
        }

    def record(self) -> None:
        """Records what was sent since the last record."""
        sent, self.sent = self.sent, Sent()
        ages, run = self.ages(), self._run
        values = {
            name: round(value, 3) for name, value in dataclasses.asdict(sent).items()
        }
        run.record(
            "publish", values | {f"{a}/age_secs": age for a, age in ages.items()}
        )
        logging.info(
            "publish | step: %d | %s | oldest: %.1f s",
            run.progress.step,
            " | ".join(f"{name}: {value}" for name, value in values.items()),
            max(ages.values()),
        )

    def log(self, every: int) -> "PublishLog":
        """Returns the action that records what was sent, every few steps."""
        return PublishLog(every, self)

    def _round(self) -> None:
        """Begins updates of the servers that are due, and hears of others."""
        now = time.monotonic()
        self._next = now + min(self._spec.every_secs, _POLL_SECS)
        if self._must_wait():
            return
        busy = self._publisher.busy
        due = [a for a in self._servers if a not in busy and self._is_due(a, now)]
        try:
            if due:
                self._copy(due)
                self._begun |= dict.fromkeys(due, now)
                self.sent.copy_secs += time.monotonic() - now
            outcomes = self._publisher.publish(0.0, only=due)
        except (OSError, ValueError) as error:
            self._next = now + _LONGEST_WAIT_SECS
            self.sent.failures += 1
            logging.warning("publish | Cannot copy what changed: %s", error)
            return
        for address, outcome in outcomes.items():
            self._hear(address, outcome)

    def _must_wait(self) -> bool:
        """Returns whether somebody has rolled back the servers."""
        was, self._is_on_hold = self._is_on_hold, self._hold.exists()
        if self._is_on_hold and not was:
            logging.warning(
                "publish | On hold: the servers were rolled back. `monolith-tf "
                "publish MODEL_DIR --to ...`, or removing %s, goes on.",
                self._hold,
            )
        return self._is_on_hold

    def _is_due(self, address: str, now: float) -> bool:
        server = self._servers[address]
        is_behind = server.step != self._run.progress.step
        return now >= server.due and (is_behind or now >= server.heard + _IDLE_SECS)

    def _copy(self, due: list[str]) -> None:
        """Copies what the servers lack, but for those that were away for long."""
        step, now = self._run.progress.step, time.monotonic()
        servers = self._servers
        for address in due:
            servers[address].sending = step
        used = [at for s in servers.values() for at in (s.last, s.sending)]
        self._rows.keep(at for at in used if at is not None)
        copied = [
            server.step
            for server in map(servers.__getitem__, due)
            if server.step is not None and now < server.taken + _COPIED_SECS
        ]
        self._source = self._rows.take(step, copied)

    def _taken(self) -> live_source.LiveSource:
        if self._source is None:
            raise ValueError("Nothing was copied.")
        return self._source

    def _refuse(self, error: Exception) -> None:
        """Notes that the guard stopped an update; all servers wait for a while."""
        if self._source is self._refused:
            return  # Another server says the same.
        self._refused = self._source
        self.sent.refusals += 1
        self._wait = min(max(2 * self._wait, self._spec.every_secs), _LONGEST_REFUSAL)
        if self._golden is not None:
            self._golden.drop()
        due = time.monotonic() + self._wait
        for server in self._servers.values():
            server.step, server.due = None, max(server.due, due)
        run = self._run
        run.recorder.log.append("publish", run.progress.step, {"refused": str(error)})
        logging.warning(
            "publish | step: %d | refused: %s. The servers keep what they have; the "
            "next try is in %.1f s.",
            run.progress.step,
            error,
            self._wait,
        )

    def _hear(self, address: str, outcome: server_update.Published | Exception) -> None:
        server, now = self._servers[address], time.monotonic()
        sent, server.sending = self.sent, None
        if isinstance(outcome, guard.RefusedError):
            self._refuse(outcome)
            return
        if isinstance(outcome, Exception):
            sent.failures += 1
            server.step = None  # Half of an update may have arrived.
            server.wait = min(
                max(2 * server.wait, self._spec.every_secs), _LONGEST_WAIT_SECS
            )
            server.due = now + server.wait
            if str(outcome) != server.failure:
                server.failure = str(outcome)
                logging.warning(
                    "publish | %s\nTraining goes on, and it is tried again.", outcome
                )
            return
        if server.failure:
            logging.info("publish | %s takes updates again.", address)
        server.failure, server.wait = "", 0.0
        server.step = server.last = outcome.to_step
        server.heard = now
        server.taken = self._begun[address]
        self._run.newest["publish"] = now
        server.due = server.taken + self._spec.every_secs
        if outcome.updated or outcome.dense:
            self._wait = 0.0
        sent.updates += 1
        sent.rows += outcome.updated
        sent.removed += outcome.removed
        sent.inserted += outcome.inserted
        sent.clipped += outcome.clipped
        sent.dense += outcome.dense
        sent.seconds = max(sent.seconds, now - server.taken)


def _dense(model: tf.Module) -> dict[str, np.ndarray]:
    """Returns path -> value of a model's variables, as checkpoints name them."""
    return {
        flat_dense.PREFIX + path: variable_paths.value(variable)
        for path, variable in variable_paths.named(model).items()
    }


class PublishLog(actions.EverySteps):
    """Writes the `publish` records of `metrics.jsonl`, and a line of the log."""

    needs_quiet = False
    is_quick = True

    def __init__(self, every: int, live: LivePublishing) -> None:
        super().__init__(every, at_end=True)
        self._live = live

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        del run
        self._live.record()
