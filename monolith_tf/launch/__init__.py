"""Launches the processes of a cluster job, on this machine or on Kubernetes."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "LocalCluster": "local",
        "Outcome": "supervisor",
        "kubernetes_manifests": "kubernetes",
        "local_tasks": "local",
        "tfjob_manifests": "tfjob",
        "to_yaml": "pods",
    },
)
