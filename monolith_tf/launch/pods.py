"""The common parts of all Kubernetes manifests."""

import math
import pathlib
import re
from collections.abc import Sequence

import yaml

import monolith_tf
from monolith_tf import config as config_lib
from monolith_tf.config import schema
from monolith_tf.distribute import heartbeat
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.types import JsonDict

Manifest = JsonDict

PORT = 2222
VOLUME_DIR = "/job"
_CONFIG_DIR = "/etc/monolith_tf"
# Resource requests of pods; edit them by the sizing rules of docs/cluster.md.
_REQUESTS = {
    "chief": {"cpu": "1", "memory": "2Gi"},
    "ps": {"cpu": "2", "memory": "8Gi"},
    "worker": {"cpu": "4", "memory": "4Gi"},
    "evaluator": {"cpu": "2", "memory": "8Gi"},
}
_CHECKPOINT_SECS = 300
_BEAT_FILE = "/tmp/monolith_tf.beat"
# Whether the task has beaten since the last probe. It uses no clock, and does not start
# Python. It succeeds if the task has not begun to beat.
_PROBE = (
    f"test ! -e {_BEAT_FILE} || "
    f"{{ ! cmp -s {_BEAT_FILE} {_BEAT_FILE}.seen && "
    f"cp {_BEAT_FILE} {_BEAT_FILE}.seen; }}"
)
_PROBES = 3


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as literal blocks."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """Returns manifests as one YAML stream."""
    return yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=1000
    )


def job_name(config: schema.ExperimentConfig) -> str:
    """Returns a job's name: the last part of its `model_dir`, valid for Kubernetes.

    Raises:
      ValueError: If that part has no letters or digits.
    """
    last = pathlib.PurePosixPath(config.model_dir).name.lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:40].strip("-")
    if not name:
        raise ValueError(
            "The last part of `model_dir` must have letters or digits, since it names "
            f"the job. Received: model_dir={config.model_dir!r}."
        )
    # The name of a Service must begin with a letter.
    return name if name[0].isalpha() else f"job-{name}"


def cluster_of(config: schema.ExperimentConfig) -> ClusterSpec:
    """Returns a config's cluster, after checking that its tasks can share a folder.

    Raises:
      ValueError: If there is no `cluster`, or `model_dir` is outside of the volume.
    """
    if config.cluster is None:
        raise ValueError("`cluster` must be set. Received: cluster=None.")
    path = config.model_dir
    below = pathlib.PurePosixPath(VOLUME_DIR, path).is_relative_to(VOLUME_DIR)
    if not below or ".." in path.split("/"):
        raise ValueError(
            f"`model_dir` must be relative or below {VOLUME_DIR}, where the pods mount "
            f"their shared volume. Received: model_dir={path!r}."
        )
    return config.cluster


def labels(name: str) -> dict[str, str]:
    """Returns the labels of all objects of a job."""
    return {
        "app.kubernetes.io/name": "monolith-tf",
        "app.kubernetes.io/instance": name,
    }


def metadata(name: str, suffix: str = "") -> Manifest:
    """Returns the metadata of an object that belongs to a job."""
    return {"name": name + suffix, "labels": labels(name)}


def shared_objects(config: schema.ExperimentConfig) -> list[Manifest]:
    """Returns the config and the volume."""
    name = job_name(config)
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(name, "-config"),
            "data": {"config.yaml": config_lib.dump_config(config)},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata(name),
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "100Gi"}},
            },
        },
    ]


def fence(name: str, pods: dict[str, str]) -> Manifest:
    """Returns a policy that lets only the pods of a job connect to each other."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name),
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": pods}}],
                    "ports": [{"protocol": "TCP", "port": PORT}],
                }
            ],
        },
    }


def pod_spec(
    kind: str,
    config: schema.ExperimentConfig,
    image: str | None,
    *,
    container: str,
    port: str,
) -> Manifest:
    """Returns the spec of a task's pod.

    Args:
      kind: The task's kind.
      config: The job's config.
      image: The image; None takes `monolith-tf:<version>`.
      container: The container's name.
      port: The port's name.
    """
    name = job_name(config)
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": container,
                "image": image or f"monolith-tf:{monolith_tf.__version__}",
                "command": ["python", "-m", "monolith_tf", "train"],
                "args": [f"{_CONFIG_DIR}/config.yaml"],
                "workingDir": VOLUME_DIR,
                "ports": [{"name": port, "containerPort": PORT}],
                "env": [{"name": heartbeat.FILE_VARIABLE, "value": _BEAT_FILE}],
                "livenessProbe": _liveness_probe(cluster_of(config)),
                "resources": {"requests": dict(_REQUESTS[kind])},
                "volumeMounts": [
                    {"name": "job", "mountPath": VOLUME_DIR},
                    {"name": "config", "mountPath": _CONFIG_DIR, "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {"name": "job", "persistentVolumeClaim": {"claimName": name}},
            {"name": "config", "configMap": {"name": f"{name}-config"}},
        ],
    }
    if kind == "chief":
        spec["terminationGracePeriodSeconds"] = _CHECKPOINT_SECS
    return spec


def _liveness_probe(cluster: ClusterSpec) -> Manifest:
    """Returns the probe that ends a container whose task hangs."""
    return {
        "exec": {"command": ["sh", "-c", _PROBE]},
        "periodSeconds": math.ceil(cluster.hang_timeout / _PROBES),
        "failureThreshold": _PROBES,
        "timeoutSeconds": 10,
        # A task that hangs ignores SIGTERM, and writes no checkpoint.
        "terminationGracePeriodSeconds": 10,
    }
