"""The task of a cluster that this process runs, from `TF_CONFIG`."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from typing import Literal

from monolith_tf.types import JsonDict

Kind = Literal["chief", "worker", "ps", "evaluator"]

VARIABLE = "TF_CONFIG"
_JOBS = ("chief", "worker", "ps")
_SERVING: tuple[Kind, ...] = ("ps", "worker")
_KINDS = (*_JOBS, "evaluator")
_FORM = (
    'It must look like {"cluster": {"chief": ["host:port"], "worker": [...], '
    '"ps": [...]}, "task": {"type": "worker", "index": 0}}.'
)


class TaskError(ValueError):
    """`TF_CONFIG` cannot be used; the message says where and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One process of a cluster.

    Attributes:
      kind: Its kind.
      index: Its index among the tasks of its kind.
      cluster: Job -> addresses `host:port`: one `chief`, and any number of `worker` and
        `ps`. It has no evaluator, since no task connects to that.
    """

    kind: Kind
    index: int
    cluster: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Its name in messages and files."""
        return self.kind if self.kind == "chief" else f"{self.kind}-{self.index}"

    @property
    def address(self) -> str | None:
        """Its own `host:port`; None for an evaluator."""
        if self.kind == "evaluator":
            return None
        return self.cluster[self.kind][self.index]

    def others(self) -> tuple["Task", ...]:
        """Returns all workers and parameter servers, including this task."""
        return tuple(
            Task(kind=kind, index=index, cluster=self.cluster)
            for kind in _SERVING
            for index in range(len(self.cluster[kind]))
        )

    def to_tf_config(self) -> str:
        """Returns the value of `TF_CONFIG` that describes it."""
        cluster = {job: list(addresses) for job, addresses in self.cluster.items()}
        task = {"type": self.kind, "index": self.index}
        return json.dumps({"cluster": cluster, "task": task})

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> "Task | None":
        """Returns the task that an environment describes.

        Args:
          environment: Such as `os.environ`.

        Returns:
          The task; None if `TF_CONFIG` is missing or empty.

        Raises:
          TaskError: If it cannot be used.
        """
        text = environment.get(VARIABLE, "").strip()
        if not text:
            return None
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise TaskError(
                f"`{VARIABLE}` is not JSON: {error.msg} at character {error.pos}. "
                f"{_FORM}"
            ) from None
        _check_object(given, "")
        cluster = {job: _addresses(given, job) for job in _JOBS}
        _check_cluster(_member(given, "cluster", ""), cluster)
        return cls(cluster=cluster, **_task(given, cluster))


def check_counts(task: Task, *, ps: int, workers: int) -> None:
    """Checks that a config and `TF_CONFIG` describe the same cluster.

    Raises:
      TaskError: If they do not.
    """
    for job, key, wanted in (("ps", "ps", ps), ("worker", "workers", workers)):
        found = len(task.cluster[job])
        if found != wanted:
            raise _error(
                f"cluster.{job}",
                f"must list {wanted} addresses, as `cluster.{key}` of the config says",
                f"{found}",
            )


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of `host:port`; an IPv6 host is in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _error(path: str, expected: str, received: object) -> TaskError:
    place = f"`{VARIABLE}`: `{path}`" if path else f"`{VARIABLE}`"
    return TaskError(f"{place} {expected}. Received: {received}. {_FORM}")


def _check_object(value: object, path: str) -> None:
    if not isinstance(value, dict):
        raise _error(path, "must be an object", json.dumps(value))


def _member(parent: JsonDict, name: str, path: str) -> Any:
    inner = f"{path}.{name}" if path else name
    if name not in parent:
        raise _error(inner, "is missing", f"keys {list(parent)}")
    return parent[name]


def _addresses(given: JsonDict, job: str) -> tuple[str, ...]:
    cluster = _member(given, "cluster", "")
    _check_object(cluster, "cluster")
    addresses = _member(cluster, job, "cluster")
    if not isinstance(addresses, list) or not addresses:
        raise _error(
            f"cluster.{job}",
            "must be a list of at least one address",
            json.dumps(addresses),
        )
    for index, address in enumerate(addresses):
        if not isinstance(address, str) or not is_address(address):
            raise _error(
                f"cluster.{job}[{index}]",
                "must be `host:port` with a port from 1 to 65535",
                json.dumps(address),
            )
    return tuple(addresses)


def is_address(address: str) -> bool:
    """Returns whether a text is `host:port`; an IPv6 host must be in brackets."""
    host, _, port = address.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    return (
        bool(host.strip("[]"))
        and (":" not in host or in_brackets)
        and not any(c in host for c in "/ \t")
        and port.isascii()
        and port.isdigit()
        and 0 < int(port) < 1 << 16
    )


def _check_cluster(given: JsonDict, cluster: Mapping[str, tuple[str, ...]]) -> None:
    if "evaluator" in given:
        raise _error(
            "cluster.evaluator",
            "must be left out: an evaluator needs only its `task`, and has no address",
            json.dumps(given["evaluator"]),
        )
    unknown = [job for job in given if job not in _JOBS]
    if unknown:
        raise _error(
            f"cluster.{unknown[0]}", f"is not one of {', '.join(_JOBS)}", unknown[0]
        )
    if len(cluster["chief"]) != 1:
        raise _error("cluster.chief", "must list one address", len(cluster["chief"]))
    seen: dict[str, str] = {}
    for job, addresses in cluster.items():
        for index, address in enumerate(addresses):
            place = f"cluster.{job}[{index}]"
            if address in seen:
                raise _error(
                    place, f"must differ from `{seen[address]}`", f"{address} twice"
                )
            seen[address] = place


def _task(given: JsonDict, cluster: Mapping[str, tuple[str, ...]]) -> JsonDict:
    task = _member(given, "task", "")
    _check_object(task, "task")
    kind = _member(task, "type", "task")
    if kind not in _KINDS:
        raise _error(
            "task.type", f"must be one of {', '.join(_KINDS)}", json.dumps(kind)
        )
    index = task.get("index", 0)
    if isinstance(index, str) and index.isdigit():  # Some schedulers write strings.
        index = int(index)
    count = 1 if kind == "evaluator" else len(cluster[kind])
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        raise _error(
            "task.index",
            f"must be a number below {count}, the tasks of type {kind}",
            json.dumps(index),
        )
    return {"kind": kind, "index": index}
