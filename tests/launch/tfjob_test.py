"""The TFJob, checked with a schema written from the training operator's documentation.

Source: Kubeflow documentation, "TensorFlow Training (TFJob)", and the API reference of
kubeflow.org/v1.
"""

import copy
import json

import jsonschema
import kubernetes_validate
import pytest
import yaml

from monolith_tf import launch
from monolith_tf.distribute.task import Task

_REPLICA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["template"],
    "properties": {
        "replicas": {"type": "integer", "minimum": 0},
        "restartPolicy": {"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
        "template": {
            "type": "object",
            "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object",
                    # The replica's policy is used.
                    "not": {"required": ["restartPolicy"]},
                    "properties": {
                        "containers": {
                            "contains": {
                                "type": "object",
                                "required": ["name", "image", "ports"],
                                "properties": {
                                    "name": {"const": "tensorflow"},
                                    "ports": {
                                        "contains": {
                                            "required": ["name", "containerPort"],
                                            "properties": {
                                                "name": {"const": "tfjob-port"}
                                            },
                                        }
                                    },
                                },
                            }
                        }
                    },
                }
            },
        },
    },
}
_ONE = {"properties": {"replicas": {"maximum": 1}}}
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v1"},
        "kind": {"const": "TFJob"},
        "metadata": {
            "type": "object",
            "anyOf": [{"required": ["name"]}, {"required": ["generateName"]}],
        },
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["tfReplicaSpecs"],
            "properties": {
                "runPolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "cleanPodPolicy": {"enum": ["All", "Running", "None"]},
                        "ttlSecondsAfterFinished": {"type": "integer"},
                        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                        "backoffLimit": {"type": "integer", "minimum": 0},
                        "schedulingPolicy": {"type": "object"},
                        "suspend": {"type": "boolean"},
                    },
                },
                "successPolicy": {"enum": ["", "AllWorkers"]},
                "enableDynamicWorker": {"type": "boolean"},
                "tfReplicaSpecs": {
                    "type": "object",
                    "additionalProperties": False,
                    "minProperties": 1,
                    "properties": {
                        "Chief": {"allOf": [_REPLICA, _ONE]},
                        "Master": {"allOf": [_REPLICA, _ONE]},
                        "Evaluator": {"allOf": [_REPLICA, _ONE]},
                        "PS": _REPLICA,
                        "Worker": _REPLICA,
                    },
                },
            },
        },
    },
}


@pytest.fixture
def manifests(parse):
    made = launch.tfjob_manifests(parse("cluster.evaluator=true"), image="mt:1")
    return list(yaml.safe_load_all(launch.to_yaml(made)))


@pytest.fixture
def tfjob(manifests):
    return manifests[-1]


def test_the_operator_takes_it(tfjob):
    jsonschema.Draft202012Validator.check_schema(_SCHEMA)
    jsonschema.validate(tfjob, _SCHEMA)


def test_the_check_finds_a_mistake(tfjob):
    for key, value in (("restartPolicy", "Sometimes"), ("replica", 1)):
        wrong = copy.deepcopy(tfjob)
        wrong["spec"]["tfReplicaSpecs"]["PS"][key] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, _SCHEMA)


def test_what_kubernetes_knows_is_right(manifests):
    kinds = [manifest["kind"] for manifest in manifests]
    assert kinds == ["ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "TFJob"]
    for manifest in manifests[:-1]:
        kubernetes_validate.validate(manifest, "1.37", strict=True)
    for replica in manifests[-1]["spec"]["tfReplicaSpecs"].values():
        pod = {"apiVersion": "v1", "kind": "Pod", **replica["template"]}
        kubernetes_validate.validate(pod, "1.37", strict=True)


def test_the_replicas(tfjob, parse):
    replicas = tfjob["spec"]["tfReplicaSpecs"]
    counts = {name: replica["replicas"] for name, replica in replicas.items()}
    assert counts == {"Chief": 1, "PS": 2, "Worker": 3, "Evaluator": 1}
    alone = launch.tfjob_manifests(parse())[-1]["spec"]["tfReplicaSpecs"]
    assert set(alone) == {"Chief", "PS", "Worker"}


def test_what_the_operator_sets_is_understood():
    """`TF_CONFIG` as documented, with the field that old versions needed."""
    given = {
        "cluster": {
            "chief": ["clicks-chief-0.space.svc:2222"],
            "ps": ["clicks-ps-0.space.svc:2222"],
            "worker": ["clicks-worker-0.space.svc:2222"],
        },
        "task": {"type": "evaluator", "index": 0},
        "environment": "cloud",
    }
    task = Task.from_env({"TF_CONFIG": json.dumps(given)})
    assert task.name == "evaluator-0"


def test_only_the_pods_of_the_job_may_connect(manifests):
    selector = {"matchLabels": {"training.kubeflow.org/job-name": "clicks-v2"}}
    spec = manifests[2]["spec"]
    assert spec["podSelector"] == selector
    assert spec["ingress"][0]["from"] == [{"podSelector": selector}]
