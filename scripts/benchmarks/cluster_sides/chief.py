"""The chief of a cluster that all sides share: each has its own variables there."""

import faulthandler
import json
import pathlib
import time

from cluster_sides import ours
from cluster_sides import plain
from cluster_sides.case import Case

from monolith_tf import config as config_lib
from monolith_tf.data import feed as feed_lib
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.distribute.task import VARIABLE
from monolith_tf.distribute.task import Task
from monolith_tf.experiment import build

_DEVICES = pathlib.Path("/proc/net/dev")


class Side:
    """A chief, or one process.

    Args:
      case: Fields of `Case`, as JSON.
      limit_secs: Seconds after which this process exits.
      tf_config: The task; empty for one process.
      config: The config's path.
      *overrides: As on the command line.
    """

    def __init__(
        self, case: str, limit_secs: str, tf_config: str, config: str, *overrides: str
    ) -> None:
        faulthandler.dump_traceback_later(float(limit_secs), exit=True)
        self._case = Case(**json.loads(case))
        loaded = config_lib.load_config(config, overrides)
        task = Task.from_env({VARIABLE: tf_config})
        self._cluster = self._feed = None
        if task is not None and loaded.cluster is not None:
            self._cluster = cluster_lib.Cluster(task, loaded.cluster, loaded.model_dir)
        self._job = build.Job(loaded, self._cluster)
        if self._cluster is not None:
            self._feed = feed_lib.Feed(
                self._cluster.feed_tokens, self._job.columns, self._case.batch
            )
        self._sides: dict[str, ours.Ours | plain.Plain] = {}

    def make(self, side: str) -> None:
        """Makes a side: "ours plain", "ours overlapped", "plain one", "plain many"."""
        kind, how = side.split()
        where = (self._job, self._cluster, self._feed)
        if kind == "ours":
            self._sides[side] = ours.Ours(*where, how == "overlapped")
        else:
            self._sides[side] = plain.Plain(self._case, *where, how)

    def run(self, side: str, steps: int) -> None:
        """Takes steps of a side."""
        self._sides[side].run(steps)

    def time(self, side: str, steps: int) -> tuple[float, float]:
        """Returns the seconds of a step, and its bytes on the loopback device."""
        begin_bytes, begin = _loopback_bytes(), time.perf_counter()
        self.run(side, steps)
        seconds, sent = time.perf_counter() - begin, _loopback_bytes() - begin_bytes
        return seconds / steps, sent / steps


def _loopback_bytes() -> int:
    """Bytes received on the loopback device so far; 0 if unknown."""
    if not _DEVICES.exists():
        return 0
    lines = (line.split(":") for line in _DEVICES.read_text().splitlines()[2:])
    return next((int(d.split()[0]) for name, d in lines if name.strip() == "lo"), 0)
