"""Manifests of a job for plain Kubernetes, 1.31 or later.

Parameter servers and workers are StatefulSets, whose pods keep their names and never
run twice at a time; chief and evaluator are Jobs, which end. One headless Service gives
all of them addresses.
"""

import json

from monolith_tf.config import schema
from monolith_tf.distribute import exits
from monolith_tf.distribute import sign_in
from monolith_tf.launch import pods
from monolith_tf.launch.pods import Manifest

_INDEX = "TASK_INDEX"


def kubernetes_manifests(
    config: schema.ExperimentConfig,
    *,
    image: str | None = None,
    max_restarts: int = 3,
) -> list[Manifest]:
    """Returns the objects that run a job.

    Args:
      config: The job's config, with a `cluster`. Paths are relative to the volume.
      image: The image of the containers; None takes `monolith-tf:<version>`.
      max_restarts: How often in a row the chief or an evaluator restarts.

    Raises:
      ValueError: If there is no `cluster`, or `model_dir` is outside of the volume.
    """
    cluster = pods.cluster_of(config)
    name = pods.job_name(config)
    addresses = {
        "chief": [_address(name, "chief", 0)],
        "ps": [_address(name, "ps", i) for i in range(cluster.ps)],
        "worker": [_address(name, "worker", i) for i in range(cluster.workers)],
    }
    manifests = [
        *pods.shared_objects(config),
        pods.fence(name, pods.labels(name)),
        _service(name),
        _stateful_set(config, "ps", cluster.ps, addresses, image),
        _stateful_set(config, "worker", cluster.workers, addresses, image),
        _job(config, "chief", addresses, image, max_restarts),
    ]
    if cluster.evaluator:
        manifests.append(_job(config, "evaluator", addresses, image, max_restarts))
    return manifests


def _address(name: str, kind: str, index: int) -> str:
    return f"{name}-{kind}-{index}.{name}:{pods.PORT}"


def _service(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(name),
        "spec": {
            "clusterIP": "None",
            "selector": pods.labels(name),
            # Tasks look for each other before they are ready.
            "publishNotReadyAddresses": True,
            "ports": [{"name": "grpc", "port": pods.PORT}],
        },
    }


def _stateful_set(
    config: schema.ExperimentConfig,
    kind: str,
    replicas: int,
    addresses: dict[str, list[str]],
    image: str | None,
) -> Manifest:
    name = pods.job_name(config)
    labels = pods.labels(name) | {"app.kubernetes.io/component": kind}
    template = _template(config, kind, addresses, image, index=f"$({_INDEX})")
    index = {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}
    template["spec"]["containers"][0]["env"].insert(
        0, {"name": _INDEX, "valueFrom": {"fieldRef": index}}
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": pods.metadata(name, f"-{kind}"),
        "spec": {
            "serviceName": name,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def _job(
    config: schema.ExperimentConfig,
    kind: str,
    addresses: dict[str, list[str]],
    image: str | None,
    max_restarts: int,
) -> Manifest:
    name = pods.job_name(config)
    template = _template(config, kind, addresses, image, index="0")
    limit = {"name": sign_in.RESTARTS_VARIABLE, "value": str(max_restarts)}
    template["spec"]["containers"][0]["env"].append(limit)
    template["spec"] |= {
        "restartPolicy": "Never",
        "hostname": f"{name}-{kind}-0",
        "subdomain": name,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": pods.metadata(name, f"-{kind}"),
        "spec": {
            "backoffLimit": max_restarts,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [
                            {"type": "DisruptionTarget", "status": "True"}
                        ],
                    },
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "operator": "In",
                            "values": [exits.FAILED, exits.WRONG_USE],
                        },
                    },
                    # `backoffLimit` counts over a job's whole life. So the task itself
                    # counts its starts in a row, and ends with 1 after too many.
                    {
                        "action": "Ignore",
                        "onExitCodes": {
                            "operator": "NotIn",
                            "values": [exits.FAILED, exits.WRONG_USE],
                        },
                    },
                ]
            },
            "template": template,
        },
    }


def _template(
    config: schema.ExperimentConfig,
    kind: str,
    addresses: dict[str, list[str]],
    image: str | None,
    *,
    index: str,
) -> Manifest:
    name = pods.job_name(config)
    spec = pods.pod_spec(kind, config, image, container="task", port="grpc")
    # The index is not quoted: Kubernetes replaces it by a number.
    task = f'{{"type": "{kind}", "index": {index}}}'
    tf_config = f'{{"cluster": {json.dumps(addresses)}, "task": {task}}}'
    spec["containers"][0]["env"].append({"name": "TF_CONFIG", "value": tf_config})
    return {
        "metadata": {
            "labels": pods.labels(name) | {"app.kubernetes.io/component": kind}
        },
        "spec": spec,
    }
