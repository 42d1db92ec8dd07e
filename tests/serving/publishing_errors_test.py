"""Errors of publishing."""

import functools
import math

import grpc
import pytest

from monolith_tf.serving import errors
from monolith_tf.serving import publishing
from monolith_tf.testing import publishing as support
from monolith_tf.training import checkpoint as checkpoint_lib


def _refusing(code, text):
    server = support.UpdateServer(step=0)

    def refuse(number):
        if number > 1 or code is not grpc.StatusCode.INVALID_ARGUMENT:
            raise grpc.RpcError(code, text)

    server.before = refuse
    return server


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "assertion failed: [update_embeddings: capacity is spent: ...",
            r"{address} has no room for more new ids\. Export a full version: "
            r"`monolith-tf export CONFIG`\. A larger `export\.spare_rows` lasts ",
        ),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "update_embeddings: unknown table",
            r"{address} refuses an update: update_embeddings: unknown table",
        ),
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "update_embeddings" not found.',
            r"The model at {address} takes no updates: it has no signature "
            r"`update_embeddings`\. Set `export\.spare_rows` and export it again\.",
        ),
        (
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(default)",
            r"{address} refuses an update: Servable not found for request",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect",
            r"Could not update {address}\. The last of several attempts in "
            r"[\d.]+ s failed with: UNAVAILABLE: failed to connect",
        ),
    ],
)
def test_what_a_server_refuses_is_reported(job, code, text, message):
    job.train([1])
    with (
        support.listening(_refusing(code, text)) as address,
        pytest.raises(errors.ServingError, match="^" + message.format(address=address)),
    ):
        publishing.publish(job.folder, address, patience_secs=0.5)


@pytest.mark.parametrize("patience_secs", [math.nan, math.inf, -1.0])
def test_a_patience_without_an_end_is_refused(job, patience_secs):
    with pytest.raises(ValueError, match=r"^`patience_secs` must be finite"):
        publishing.publish(job.folder, "localhost:1", patience_secs=patience_secs)


def test_an_address_without_a_port_is_refused(job):
    with pytest.raises(ValueError, match=r"^`addresses` must be host:port"):
        publishing.publish(job.folder, "no.such.host")


def test_a_server_that_is_ahead_is_refused(job):
    job.train([1])
    server = support.UpdateServer(step=7)
    message = "is at step 7, ahead of the newest readable checkpoint, of step 1"
    with (
        support.listening(server) as address,
        pytest.raises(errors.ServingError, match=message),
    ):
        publishing.publish(job.folder, address)
    assert not server.rows


def test_an_export_without_a_lineage_is_to_be_exported_again(job):
    job.train([1])
    refusing = _refusing(
        grpc.StatusCode.INVALID_ARGUMENT,
        "input size does not match signature: 7!=5. Sent extra: {lineage,newest}.",
    )
    refusing.before = functools.partial(_raise_now, refusing.before)
    with (
        support.listening(refusing) as address,
        pytest.raises(
            errors.ServingError, match=r"exported without a lineage.* Export it again"
        ),
    ):
        publishing.publish(job.folder, address)


def _raise_now(refuse, number):
    refuse(number + 1)


def test_a_job_that_does_not_track_updates_is_reported(tmp_path):
    job = support.RowJob(tmp_path, track_updates=False)
    job.train([1])
    with (
        support.listening(support.UpdateServer(step=0)) as address,
        pytest.raises(
            errors.ServingError,
            match=r"ckpt-00000001/embedding does not record when its rows were "
            r"updated\. Set `export\.spare_rows`, train further, and publish the "
            r"next checkpoint\.",
        ),
    ):
        publishing.publish(tmp_path, address)


def test_a_job_without_checkpoints_is_reported(tmp_path):
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=rf"^There is no checkpoint in {tmp_path}/checkpoints\. Train first: ",
    ):
        publishing.publish(tmp_path, "127.0.0.1:1")
