"""Manifests of a job for Kubeflow's training operator: a TFJob.

The operator sets `TF_CONFIG`, and gives every task a Service.
"""

from monolith_tf.config import schema
from monolith_tf.launch import pods
from monolith_tf.launch.pods import Manifest

# Names that the operator looks for in a pod.
_CONTAINER = "tensorflow"
_PORT = "tfjob-port"


def tfjob_manifests(
    config: schema.ExperimentConfig, *, image: str | None = None
) -> list[Manifest]:
    """Returns the objects that run a job.

    Args:
      config: The job's config, with a `cluster`. Paths are relative to the volume.
      image: The image of the containers; None takes `monolith-tf:<version>`.

    Raises:
      ValueError: If there is no `cluster`, or `model_dir` is outside of the volume.
    """
    cluster = pods.cluster_of(config)
    name = pods.job_name(config)
    replicas = {
        "Chief": ("chief", 1),
        "PS": ("ps", cluster.ps),
        "Worker": ("worker", cluster.workers),
    }
    if cluster.evaluator:
        replicas["Evaluator"] = ("evaluator", 1)
    return [
        *pods.shared_objects(config),
        pods.fence(name, {"training.kubeflow.org/job-name": name}),
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "TFJob",
            "metadata": pods.metadata(name),
            "spec": {
                # The operator counts over the job's whole life.
                "runPolicy": {"backoffLimit": 10, "cleanPodPolicy": "Running"},
                "tfReplicaSpecs": {
                    key: _replica(config, kind, count, image)
                    for key, (kind, count) in replicas.items()
                },
            },
        },
    ]


def _replica(
    config: schema.ExperimentConfig, kind: str, count: int, image: str | None
) -> Manifest:
    labels = pods.labels(pods.job_name(config))
    return {
        "replicas": count,
        # The policy ExitCode treats a lost parameter server, 75, as permanent.
        "restartPolicy": "OnFailure",
        "template": {
            "metadata": {
                "labels": labels | {"app.kubernetes.io/component": kind},
                # A service mesh's proxy breaks the tasks' connections.
                "annotations": {"sidecar.istio.io/inject": "false"},
            },
            "spec": pods.pod_spec(
                kind, config, image, container=_CONTAINER, port=_PORT
            ),
        },
    }
