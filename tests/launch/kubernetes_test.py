"""Manifests for plain Kubernetes, checked with its own schemas."""

import copy
import json
import re
import subprocess

import kubernetes_validate
import pytest
import yaml

import monolith_tf
from monolith_tf import config as config_lib
from monolith_tf import launch
from monolith_tf.distribute import heartbeat
from monolith_tf.distribute import sign_in
from monolith_tf.distribute.task import Task

# The failure policy of Jobs is stable from the first of them.
_VERSIONS = ["1.31", "1.37"]


@pytest.fixture
def manifests(parse):
    config = parse("cluster.evaluator=true")
    return launch.kubernetes_manifests(config, image="registry/mt:1")


def by_kind(manifests):
    found = {}
    for manifest in manifests:
        key = manifest["kind"], manifest["metadata"]["name"]
        assert key not in found
        found[key] = manifest
    return found


def pods(manifests):
    """Yields kind of task and pod template."""
    for manifest in manifests:
        if manifest["kind"] in ("StatefulSet", "Job"):
            kind = manifest["metadata"]["name"].rpartition("-")[2]
            yield kind, manifest["spec"]["template"]


def tfjob_pods(manifests):
    """Yields kind of task and pod template of a TFJob."""
    for manifest in manifests:
        if manifest["kind"] == "TFJob":
            for kind, replica in manifest["spec"]["tfReplicaSpecs"].items():
                yield kind, replica["template"]


@pytest.mark.parametrize("version", _VERSIONS)
def test_kubernetes_takes_them(manifests, version):
    for manifest in yaml.safe_load_all(launch.to_yaml(manifests)):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_check_finds_a_mistake(manifests):
    wrong = copy.deepcopy(by_kind(manifests)["Job", "clicks-v2-chief"])
    wrong["spec"]["podFailurePolicie"] = wrong["spec"].pop("podFailurePolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, _VERSIONS[0], strict=True)


def test_the_objects(manifests):
    assert list(by_kind(manifests)) == [
        ("ConfigMap", "clicks-v2-config"),
        ("PersistentVolumeClaim", "clicks-v2"),
        ("NetworkPolicy", "clicks-v2"),
        ("Service", "clicks-v2"),
        ("StatefulSet", "clicks-v2-ps"),
        ("StatefulSet", "clicks-v2-worker"),
        ("Job", "clicks-v2-chief"),
        ("Job", "clicks-v2-evaluator"),
    ]
    replicas = [m["spec"]["replicas"] for m in manifests if m["kind"] == "StatefulSet"]
    assert replicas == [2, 3]


def test_without_an_evaluator(parse):
    kinds = [kind for kind, _ in pods(launch.kubernetes_manifests(parse()))]
    assert kinds == ["ps", "worker", "chief"]


def test_every_pod_learns_which_task_it_is(manifests):
    """Replaces variables like Kubernetes, and reads the result like a task."""
    counts = {"ps": 2, "worker": 3, "chief": 1, "evaluator": 1}
    for kind, template in pods(manifests):
        environment = template["spec"]["containers"][0]["env"]
        for index in range(counts[kind]):
            values = {}
            for variable in environment:
                if "valueFrom" in variable:
                    values[variable["name"]] = str(index)
                else:
                    values[variable["name"]] = re.sub(
                        r"\$\((\w+)\)",
                        lambda found, values=values: values[found[1]],
                        variable["value"],
                    )
            task = Task.from_env(values)
            assert (task.kind, task.index) == (kind, index)
            assert {k: len(v) for k, v in task.cluster.items()} == {
                "chief": 1,
                "ps": 2,
                "worker": 3,
            }
            if kind != "evaluator":
                host = f"clicks-v2-{kind}-{index}"
                assert task.address == f"{host}.clicks-v2:2222"


def test_addresses_lead_to_the_pods(manifests):
    service = by_kind(manifests)["Service", "clicks-v2"]
    assert service["spec"]["clusterIP"] == "None"
    selector = service["spec"]["selector"]
    for kind, template in pods(manifests):
        assert selector.items() <= template["metadata"]["labels"].items()
        spec = template["spec"]
        assert spec["containers"][0]["ports"][0]["containerPort"] == 2222
        if kind in ("chief", "evaluator"):
            assert spec["hostname"] == f"clicks-v2-{kind}-0"
            assert spec["subdomain"] == "clicks-v2"
        else:
            owner = by_kind(manifests)["StatefulSet", f"clicks-v2-{kind}"]
            assert owner["spec"]["serviceName"] == "clicks-v2"
            labels = owner["spec"]["selector"]["matchLabels"]
            assert labels == template["metadata"]["labels"]


def test_all_pods_run_one_config_on_one_volume(manifests, parse):
    text = by_kind(manifests)["ConfigMap", "clicks-v2-config"]["data"]["config.yaml"]
    config = config_lib.parse_config(text, data="ignored")
    assert config == parse("cluster.evaluator=true")
    claim = by_kind(manifests)["PersistentVolumeClaim", "clicks-v2"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for _, template in pods(manifests):
        (container,) = template["spec"]["containers"]
        assert container["image"] == "registry/mt:1"
        command = [*container["command"], *container["args"]]
        assert command[:4] == ["python", "-m", "monolith_tf", "train"]
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert command[4] == mounts["config"] + "/config.yaml"
        assert container["workingDir"] == mounts["job"]
        volumes = {v["name"]: v for v in template["spec"]["volumes"]}
        claimed = volumes["job"]["persistentVolumeClaim"]["claimName"]
        assert claimed == "clicks-v2"
        assert volumes["config"]["configMap"]["name"] == "clicks-v2-config"


def test_errors_end_the_job_and_lost_servers_do_not(manifests):
    spec = by_kind(manifests)["Job", "clicks-v2-chief"]["spec"]
    disrupted, wrong, others = spec["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore"
    assert wrong["action"] == "FailJob"
    assert wrong["onExitCodes"] == {"operator": "In", "values": [1, 2]}
    assert others["action"] == "Ignore"
    assert others["onExitCodes"] == {"operator": "NotIn", "values": [1, 2]}
    # Only with this policy, a Job checks exit codes.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 300


def test_only_the_pods_of_the_job_may_connect(manifests):
    spec = by_kind(manifests)["NetworkPolicy", "clicks-v2"]["spec"]
    ours = spec["podSelector"]
    assert spec["ingress"] == [
        {"from": [{"podSelector": ours}], "ports": [{"protocol": "TCP", "port": 2222}]}
    ]
    for _, template in pods(manifests):
        labels = template["metadata"]["labels"]
        assert ours["matchLabels"].items() <= labels.items()


def test_the_image_of_this_version(parse):
    for _, template in pods(launch.kubernetes_manifests(parse())):
        image = template["spec"]["containers"][0]["image"]
        assert image == f"monolith-tf:{monolith_tf.__version__}"


def test_the_tasks_that_end_count_their_restarts_themselves(parse):
    config = parse("cluster.evaluator=true")
    for max_restarts in (0, 7):
        manifests = launch.kubernetes_manifests(config, max_restarts=max_restarts)
        for kind, template in pods(manifests):
            environment = template["spec"]["containers"][0]["env"]
            values = {e["name"]: e.get("value") for e in environment}
            counts = kind in ("chief", "evaluator")
            expected = str(max_restarts) if counts else None
            assert values.get(sign_in.RESTARTS_VARIABLE) == expected
        limit = by_kind(manifests)["Job", "clicks-v2-chief"]["spec"]["backoffLimit"]
        assert limit == max_restarts


def test_the_probe_looks_whether_a_task_beats(parse, tmp_path):
    config = parse("cluster.hang_timeout=100")
    for manifests in (
        launch.kubernetes_manifests(config),
        launch.tfjob_manifests(config),
    ):
        (path,) = {
            e["value"]
            for _, template in (*pods(manifests), *tfjob_pods(manifests))
            for e in template["spec"]["containers"][0]["env"]
            if e["name"] == heartbeat.FILE_VARIABLE
        }
        (probe,) = {
            json.dumps(template["spec"]["containers"][0]["livenessProbe"])
            for _, template in (*pods(manifests), *tfjob_pods(manifests))
        }
    probe = json.loads(probe)
    assert probe["periodSeconds"] * probe["failureThreshold"] == 102
    own = tmp_path / "beat"
    command = [part.replace(path, str(own)) for part in probe["exec"]["command"]]

    def is_alive():
        return subprocess.run(command, check=False).returncode == 0

    assert is_alive()  # It has not begun to beat.
    own.write_text("17 1\n")
    assert is_alive()
    assert not is_alive()
    assert not is_alive()
    own.write_text("17 2\n")
    assert is_alive()


@pytest.mark.parametrize(
    ("model_dir", "name"),
    [
        ("/job/runs/A.b", "a-b"),
        ("2024", "job-2024"),
        ("x" * 80, "x" * 40),
    ],
)
def test_names_of_jobs(parse, model_dir, name):
    manifests = launch.kubernetes_manifests(parse(f"model_dir={model_dir!r}"))
    assert ("Service", name) in by_kind(manifests)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, _VERSIONS[-1], strict=True)


@pytest.mark.parametrize("model_dir", ["/home/me/runs", "../runs", "/job/../etc"])
def test_a_model_dir_that_pods_do_not_share(parse, model_dir):
    with pytest.raises(ValueError, match=r"must be relative or below /job, .*Received"):
        launch.kubernetes_manifests(parse(f"model_dir={model_dir}"))


def test_a_model_dir_without_a_name(parse):
    with pytest.raises(ValueError, match=r"must have letters or digits.*='___'"):
        launch.kubernetes_manifests(parse("model_dir=___"))


def test_a_config_without_a_cluster(parse):
    with pytest.raises(ValueError, match=r"`cluster` must be set\. Received: .*None"):
        launch.tfjob_manifests(parse("cluster=null"))
