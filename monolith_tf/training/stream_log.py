"""Records how far a job is behind its topic, and commits offsets after checkpoints."""

import functools
import time

from absl import logging

from monolith_tf.data.stream.source import StreamSource
from monolith_tf.training import actions
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import run as run_lib


class StreamLog(actions.EverySteps):
    """Writes the `stream` records of `metrics.jsonl`, and a line of the log.

    Args:
      every: Steps between records.
      source: The topic.
    """

    needs_quiet = False
    is_quick = True

    def __init__(self, every: int, source: StreamSource) -> None:
        super().__init__(every, at_end=True)
        self._source = source
        self._since = (time.monotonic(), 0)  # Time and messages of the last record.
        self._spans: dict[str, int] = {}  # Name of a checkpoint -> its next span.

    def begin(self, run: run_lib.Run) -> None:
        """See base class."""
        super().begin(run)
        run.on_saved.append(functools.partial(self._after, run))
        if run.saved is not None:
            age = max(time.time() - run.saved.path.stat().st_mtime, 0)
            run.newest["checkpoint"] = time.monotonic() - age

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        state = self._source.state()
        if state is None:
            return
        now = time.monotonic()
        since, messages = self._since
        self._since = now, state.messages
        values = {
            "lag": state.lag,
            "messages": state.messages,
            "messages_per_sec": round((state.messages - messages) / (now - since), 1),
            "spans": (run.progress.stream or {}).get("span", 0),
        }
        if state.newest:
            values["lag_secs"] = round(max(time.time() - state.newest / 1000, 0), 3)
        for name, when in run.newest.items():
            values[f"{name}_age_secs"] = round(now - when, 3)
        run.record("stream", values)
        logging.info(
            "stream | step: %d | %s",
            run.progress.step,
            " | ".join(f"{name}: {value}" for name, value in values.items()),
        )

    def _after(self, run: run_lib.Run, saved: checkpoint_lib.Checkpoint) -> None:
        """Commits a checkpoint's offsets, and drops spans that no checkpoint needs."""
        run.newest["checkpoint"] = time.monotonic()
        position = saved.manifest["state"]["progress"].get("stream")
        if not position:
            return
        self._source.commit(position)
        self._spans[saved.path.name] = position["span"]
        names = run.checkpoints.names()
        self._spans = {k: span for k, span in self._spans.items() if k in names}
        if len(self._spans) == len(names):  # No checkpoint is of a former run.
            self._source.forget_spans(min(self._spans.values()))
