"""Rows of an export change by gRPC, and bad requests change nothing."""

import http.client
import json
from typing import ClassVar

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from monolith_tf import lineage as lineage_lib
from monolith_tf.export import publish_spec
from monolith_tf.export import saved_model
from monolith_tf.export import spec as spec_lib
from monolith_tf.lineage import Branch
from monolith_tf.lineage import Lineage
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import guard
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import server_update
from monolith_tf.serving import trial
from monolith_tf.serving import update_client
from monolith_tf.testing import small_network

_WEIGHTS = {
    "user": {7: [1.0, 2.0, 3.0], 8: [0.0, 0.0, 1.0]},
    "item": {1: [1.0, 1.0, 1.0]},
}
_SPARE = 2
_JOB = Lineage((Branch("mine"),))
_OTHER = Lineage((Branch("other"),))


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A folder of versions of an export that takes updates, without a sigmoid."""
    folder = tmp_path_factory.mktemp("updatable")
    chunks = small_network.rows(_WEIGHTS)
    saved_model.export(
        small_network.make(),
        small_network.COLUMNS,
        folder,
        rows=lambda: chunks,
        spec=spec_lib.ExportSpec(spare_rows=_SPARE),
        origin=saved_model.Origin(lineage=_JOB, step=100),
    )
    return folder


@pytest.fixture
def export_dir(exported):
    return exported


@pytest.fixture
def client(server):
    with _connected(server, _JOB) as made:
        yield made


def _connected(server, lineage, newest=120):
    address = f"127.0.0.1:{server.port}"
    return update_client.UpdateClient(address, "default", lineage, newest)


@pytest.fixture
def sums(stub, ask):
    """The model's sums for users, without history and item."""

    def answer(users):
        count = len(users)
        request = ask(
            user=np.array(users, np.int64),
            history=np.zeros([count, 1], np.int64),
            history_length=np.zeros([count], np.int64),
            item=np.zeros([count], np.int64),
            price=np.zeros([count], np.float32),
        )
        outputs = stub.Predict(request, timeout=10).outputs
        return tf.make_ndarray(outputs["sums"])[:, 0].tolist()

    return answer


def _rows(values, weights, table="user"):
    ids = small_network.feature_ids(table, values)
    return changed_rows.Rows(table, ids, np.array(weights, np.float32))


def test_mutate_then_predict(client, sums):
    assert sums([7, 8, 9]) == [6, 1, 0]
    assert client.update(_rows([], np.zeros([0, 3]))).step == 100
    changed = _rows([7, 9], [[1, 1, 1], [2, 2, 2]])
    assert client.update(changed) == update_client.Updated(inserted=1, step=100)
    assert sums([7, 8, 9]) == [3, 1, 6]
    # Sending it again changes nothing.
    assert client.update(changed) == update_client.Updated(inserted=0, step=100)
    assert sums([7, 8, 9]) == [3, 1, 6]
    # Zeros remove a row; the last request sets the step.
    assert client.update(_rows([9], [[0, 0, 0]]), step=120).step == 120
    assert sums([7, 8, 9]) == [3, 1, 0]


def test_updates_are_none_of_a_batchers_requests(exported, client, sums, monkeypatch):
    asked = []
    run = model_lib.Model.run

    def spy(self, key, inputs, outputs):
        asked.append((key, set(outputs)))
        return run(self, key, inputs, outputs)

    monkeypatch.setattr(model_lib.Model, "run", spy)
    changed = _rows([7], [[1, 1, 1]])
    assert client.update(changed, step=120) == update_client.Updated(0, 120)
    assert sums([7]) == [3]
    # It recognizes requests by the inputs and outputs of each signature.
    (version,) = exported.iterdir()
    content = (version / "saved_model.pb").read_bytes()
    saved = saved_model_pb2.SavedModel.FromString(content)
    signature = saved.meta_graphs[0].signature_def["update_embeddings"]
    assert asked[0][0] == "update_embeddings"
    assert set() < asked[0][1] < set(signature.outputs)


def test_a_restarted_server_has_its_export(client, sums):
    assert client.update(_rows([], np.zeros([0, 3]))).step == 100
    assert sums([7, 8, 9]) == [6, 1, 0]


def test_spent_capacity_is_reported_and_changes_nothing(client, sums):
    with pytest.raises(
        errors.ServingError,
        match=r"has no room for more new ids. Export a full version",
    ):
        client.update(_rows([7, 20, 21, 22], np.ones([4, 3])))
    assert sums([7, 20]) == [6, 0]
    assert client.update(_rows([20, 21], np.ones([2, 3]))).inserted == 2


def test_an_export_of_before_a_table_was_exact_is_reported(client, sums):
    exact = changed_rows.Rows("user/exact", np.array([7]), np.ones((1, 3), "f4"))
    with pytest.raises(
        errors.ServingError, match=r"exported before one of its .* exact"
    ):
        client.update(exact)
    assert sums([7]) == [6]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (_rows([7], [[1, 1, 1]])._replace(table="usr"), "unknown table"),
        (_rows([7], [[1, 1, 1]])._replace(table="item"), "an id is not of the table"),
        (_rows([7], [[1, 1]]), r"rows must have shape \[n, dim\]"),
    ],
)
def test_bad_updates_are_reported(client, sums, rows, text):
    with pytest.raises(grpc.RpcError) as caught:
        client.update(rows)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.match(text)
    assert sums([7]) == [6]


def test_a_step_beyond_the_rows_checkpoint_is_refused(client, sums):
    with pytest.raises(grpc.RpcError, match="`step` must not be above `newest`"):
        client.update(_rows([7], [[1, 1, 1]]), step=1 << 39)
    assert sums([7]) == [6]
    assert client.update(_rows([], np.zeros([0, 3]))).step == 100
    assert client.update(_rows([7], [[1, 1, 1]]), step=120).step == 120


@pytest.mark.parametrize("length", [-1, 2])
def test_lengths_that_do_not_fit_their_list_are_reported(stub, ask, length):
    request = ask(
        user=[7],
        history=[[1]],
        history_length=[length],
        item=[1],
        price=np.float32([0]),
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (
        "`history_length` must be, for each row of `history`, between 0 and the number "
        "of its columns." in caught.value.details()
    )


def test_updates_by_rest(rest):
    feature_id = small_network.feature_ids("user", [7]).item()
    body = {
        "signature_name": "update_embeddings",
        "inputs": {
            "table": "user",
            "ids": [feature_id],
            "rows": [[1, 0, 0]],
            "step": 0,
            "token": 0,
            "lineage": "mine@0",
            "newest": 100,
        },
    }
    status, answer = rest("default:predict", body)
    assert (status, answer["outputs"]["inserted"]) == (200, 0)


def _branched(step):
    return Lineage((*_JOB.branches, Branch("later", step)))


@pytest.mark.parametrize(
    "lineage", [_OTHER, Lineage((*_OTHER.branches, Branch("mine")))]
)
def test_another_jobs_rows_are_refused_and_the_right_ones_are_not(
    server, client, sums, lineage
):
    assert not lineage_lib.accepts(_JOB, 100, lineage)
    with (
        _connected(server, lineage) as other,
        pytest.raises(errors.ServingError, match="serves the model of another job"),
    ):
        other.update(_rows([7], [[9, 9, 9]]), step=120)
    assert sums([7]) == [6]
    assert client.update(_rows([7], [[1, 1, 1]]), step=110).step == 110
    assert sums([7]) == [3]


def test_a_job_that_went_back_goes_on_where_the_server_is_not_ahead(
    server, client, sums
):
    # Half an update of the first line: its rows are newer than the server's step.
    client.update(_rows([7], [[1, 1, 1]]))
    for step, accepted in ((110, False), (119, False), (120, True)):
        assert lineage_lib.accepts(_JOB, 120, _branched(step)) == accepted
        with _connected(server, _branched(step), 150) as later:
            if accepted:
                assert later.update(_rows([7], [[2, 2, 2]])).step == 100
            else:
                with pytest.raises(errors.ServingError, match="has newer rows than"):
                    later.update(_rows([7], [[2, 2, 2]]))
                assert sums([7]) == [3]
    assert sums([7]) == [6]
    # The old line is now refused.
    assert not lineage_lib.accepts(_branched(120), 150, _JOB)
    with pytest.raises(errors.ServingError, match="after this job went back"):
        client.update(_rows([7], [[1, 1, 1]]))
    assert sums([7]) == [6]


def test_pages_of_other_sites_cannot_write_by_rest(server, sums):
    own = f"127.0.0.1:{server.rest_port}"
    body = {
        "signature_name": "update_embeddings",
        "inputs": {
            "table": "user",
            "ids": small_network.feature_ids("user", [7]).tolist(),
            "rows": [[1, 0, 0]],
            **{"step": 0, "token": 0, "lineage": "mine@0", "newest": 100},
        },
    }

    def send(key="update_embeddings", **headers):
        connection = http.client.HTTPConnection(own, timeout=10)
        data = json.dumps(body | {"signature_name": key})
        connection.request("POST", "/v1/models/default:predict", data, headers)
        answer = connection.getresponse()
        found = answer.status, json.load(answer)
        connection.close()
        return found

    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://{own}"},
        {"Origin": f"http://127.0.0.1:{server.rest_port + 1}"},
        # A page whose host name was made to resolve to this server.
        {"Origin": "http://evil.example:8501", "Host": "evil.example:8501"},
    ):
        status, answer = send(**headers)
        assert status == 403
        assert answer["error"] == (
            "`update_embeddings` is refused to pages of other sites. "
            f"Received: Origin={headers['Origin']!r}."
        )
    assert sums([7]) == [6]
    # Reading is allowed; the request fails for another reason.
    assert send("serving_default", Origin="http://evil.example")[0] == 400
    assert send(Origin=f"http://{own}")[0] == 200
    assert sums([7]) == [1]
    assert send(Origin=f"http://localhost:{server.rest_port}")[0] == 200
    assert send()[0] == 200


class _Source:
    """Values that remove a user and give rows to new ones."""

    lineage, step, newest = _JOB, 120, 120
    tables: ClassVar = {"user": 3}
    largest: ClassVar = {"user": np.full(3, np.inf)}

    def __init__(self, gone, changed):
        self._gone, self._changed = gone, changed

    def send(self, since, sender):
        sender.update(self._changed, self.largest["user"], self.newest)

    def removed(self, since):
        return [self._gone]

    def dense(self):
        return {}


def test_an_update_without_room_is_put_back_though_it_removes_rows(
    server, client, sums, tmp_path
):
    before = sums([7, 8, 9, 10, 11])
    source = _Source(
        _rows([7], [[0, 0, 0]]), _rows([8, 9, 10, 11], np.ones([4, 3], np.float32))
    )
    for _ in range(3):
        with _connected(server, _JOB) as one:
            update = server_update.ServerUpdate(
                one,
                source,
                chunk_bytes=40,  # Some requests find room.
                trial=trial.Trial(guard.Guard(publish_spec.GuardSpec(), None)),
                undo_path=tmp_path / "a.undo",
            )
            with pytest.raises(errors.NoRoomError):
                update.run()
        assert sums([7, 8, 9, 10, 11]) == before
