import json

import pytest

from monolith_tf.distribute import task as task_lib

_CLUSTER = {"chief": ["a:1"], "worker": ["b:2", "c:3"], "ps": ["[::1]:4"]}
_FORM = (
    'It must look like {"cluster": {"chief": ["host:port"], "worker": [...], '
    '"ps": [...]}, "task": {"type": "worker", "index": 0}}.'
)


def _parse(given):
    text = given if isinstance(given, str) else json.dumps(given)
    return task_lib.Task.from_env({"TF_CONFIG": text})


def _given(cluster=None, **task):
    return {
        "cluster": _CLUSTER | (cluster or {}),
        "task": {"type": "worker", "index": 1} | task,
    }


def test_parses_what_it_writes():
    task = _parse(_given())
    assert (task.kind, task.index, task.address) == ("worker", 1, "c:3")
    assert task.name == "worker-1"
    assert task.cluster["ps"] == ("[::1]:4",)
    assert _parse(task.to_tf_config()) == task


def test_an_index_may_be_missing_or_a_string():
    assert _parse(_given(index="1")).index == 1
    given = {"cluster": _CLUSTER, "task": {"type": "chief"}}
    assert _parse(given).name == "chief"


def test_there_is_no_task_without_the_variable():
    assert task_lib.Task.from_env({}) is None
    assert task_lib.Task.from_env({"TF_CONFIG": "  "}) is None


def test_an_evaluator_has_no_address():
    task = _parse(_given(type="evaluator", index=0))
    assert task.address is None
    assert task.name == "evaluator-0"


def test_others_are_servers_before_workers():
    names = [other.name for other in _parse(_given()).others()]
    assert names == ["ps-0", "worker-0", "worker-1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "`TF_CONFIG` is not JSON: Expecting property name enclosed in double "
              "quotes at character 1."),
        ("[]", "`TF_CONFIG` must be an object. Received: []."),
        ({}, "`TF_CONFIG`: `cluster` is missing. Received: keys []."),
        ({"cluster": []}, "`TF_CONFIG`: `cluster` must be an object. Received: []."),
        ({"cluster": {"chief": ["a:1"]}},
         "`TF_CONFIG`: `cluster.worker` is missing. Received: keys ['chief']."),
        (_given({"ps": "a:1"}),
         "`TF_CONFIG`: `cluster.ps` must be a list of at least one address. Received: "
         '"a:1".'),
        (_given({"ps": []}),
         "`TF_CONFIG`: `cluster.ps` must be a list of at least one address. Received: "
         "[]."),
        (_given({"worker": ["b:2", "c"]}),
         "`TF_CONFIG`: `cluster.worker[1]` must be `host:port` with a port from 1 to "
         '65535. Received: "c".'),
        (_given({"worker": ["b:2", "c:65536"]}),
         "`TF_CONFIG`: `cluster.worker[1]` must be `host:port` with a port from 1 to "
         '65535. Received: "c:65536".'),
        (_given({"worker": ["::1:2", "c:3"]}),
         "`TF_CONFIG`: `cluster.worker[0]` must be `host:port` with a port from 1 to "
         '65535. Received: "::1:2".'),
        (_given({"worker": ["http://b:2", "c:3"]}),
         "`TF_CONFIG`: `cluster.worker[0]` must be `host:port` with a port from 1 to "
         '65535. Received: "http://b:2".'),
        (_given({"evaluator": ["d:5"]}),
         "`TF_CONFIG`: `cluster.evaluator` must be left out: an evaluator needs only "
         'its `task`, and has no address. Received: ["d:5"].'),
        (_given({"master": ["d:5"]}),
         "`TF_CONFIG`: `cluster.master` is not one of chief, worker, ps. Received: "
         "master."),
        (_given({"chief": ["a:1", "d:5"]}),
         "`TF_CONFIG`: `cluster.chief` must list one address. Received: 2."),
        (_given({"ps": ["c:3"]}),
         "`TF_CONFIG`: `cluster.ps[0]` must differ from `cluster.worker[1]`. Received: "
         "c:3 twice."),
        ({"cluster": _CLUSTER}, "`TF_CONFIG`: `task` is missing. Received: keys "
                                "['cluster']."),
        ({"cluster": _CLUSTER, "task": {}},
         "`TF_CONFIG`: `task.type` is missing. Received: keys []."),
        (_given(type="master"),
         "`TF_CONFIG`: `task.type` must be one of chief, worker, ps, evaluator. "
         'Received: "master".'),
        (_given(index=2),
         "`TF_CONFIG`: `task.index` must be a number below 2, the tasks of type "
         "worker. Received: 2."),
        (_given(index=True),
         "`TF_CONFIG`: `task.index` must be a number below 2, the tasks of type "
         "worker. Received: true."),
        (_given(type="evaluator"),
         "`TF_CONFIG`: `task.index` must be a number below 1, the tasks of type "
         "evaluator. Received: 1."),
    ],
)  # fmt: skip
def test_says_where_it_is_wrong(given, message):
    with pytest.raises(task_lib.TaskError) as caught:
        _parse(given)
    assert str(caught.value) == f"{message} {_FORM}"


def test_must_agree_with_the_config():
    task = _parse(_given())
    task_lib.check_counts(task, ps=1, workers=2)
    with pytest.raises(task_lib.TaskError) as caught:
        task_lib.check_counts(task, ps=2, workers=2)
    assert str(caught.value) == (
        "`TF_CONFIG`: `cluster.ps` must list 2 addresses, as `cluster.ps` of the "
        f"config says. Received: 1. {_FORM}"
    )
    with pytest.raises(task_lib.TaskError, match=r"as `cluster\.workers` of"):
        task_lib.check_counts(task, ps=1, workers=3)


def test_splits_addresses():
    assert task_lib.split_address("[::1]:80") == ("::1", 80)
    assert task_lib.split_address("host:1") == ("host", 1)
