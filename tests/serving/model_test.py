"""Loading: errors for damaged, foreign and missing models."""

import shutil

import grpc
import numpy as np
import pytest
import tensorflow as tf

from monolith_tf.serving import errors
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import versions


def test_answers(saved, rows):
    model = model_lib.Model(saved / "2")
    np.testing.assert_allclose(model.run("", rows)["click"], [5, 11.5])
    model.close()


def test_errors_of_the_graph_are_reported_without_its_nodes(saved):
    model = model_lib.Model(saved / "1")
    with pytest.raises(
        errors.RequestError,
        match=r"^Name: <unknown>, Feature: user \(data type: int64\) is required but "
        r"could not be found\.$",
    ):
        model.run("regress", {"inputs": np.array([b""], object)})
    model.close()


def test_bytes_of_the_request_may_be_in_the_error(saved):
    model = model_lib.Model(saved / "1")
    with pytest.raises(
        errors.RequestError, match=r"value: '\ufffd\ufffda'\.$"
    ) as caught:
        model.run("regress", {"inputs": np.array([b"\xff\xffa"], object)})
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    model.close()


@pytest.fixture
def version(saved, tmp_path):
    shutil.copytree(saved / "1", tmp_path / "1")
    return tmp_path / "1"


@pytest.mark.parametrize(
    ("file", "keep", "reason"),
    [
        ("saved_model.pb", 100, "Error parsing"),
        ("saved_model.pb", 0, "MetaGraphDef associated with tags"),
        ("variables/variables.index", 20, ".+"),
        ("variables/variables.data-00000-of-00001", 1, ".+"),
    ],
)
def test_a_truncated_version_is_reported(version, file, keep, reason):
    path = version / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        errors.ServingError,
        match=rf"Cannot load {version}: .*{reason}.* The export is damaged or was "
        "made for another server; export it again.",
    ):
        model_lib.Model(version)


def test_a_version_without_its_variables_is_reported(version):
    shutil.rmtree(version / "variables")
    with pytest.raises(errors.ServingError, match=rf"Cannot load {version}: "):
        model_lib.Model(version)


def test_a_model_for_training_is_reported(tmp_path):
    path = tmp_path / "1"
    builder = tf.compat.v1.saved_model.Builder(str(path))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.constant(1.0)
        builder.add_meta_graph_and_variables(session, ["train"])
    builder.save()
    with pytest.raises(errors.ServingError, match=r"Cannot load .*: MetaGraphDef"):
        model_lib.Model(path)


def test_a_foreign_folder_is_reported(tmp_path, saved):
    with pytest.raises(errors.ServingError, match=r"none is not a folder\.$"):
        versions.Versions(tmp_path / "none")
    with pytest.raises(
        errors.ServingError,
        match=rf"^{tmp_path} has no versions, folders named by a number\. "
        r"`monolith-tf export` writes one\.$",
    ):
        versions.Versions(tmp_path)
    with pytest.raises(errors.ServingError, match=rf"It is a version; serve {saved}"):
        versions.Versions(saved / "1")
    (tmp_path / "7").mkdir()
    with pytest.raises(
        errors.ServingError,
        match=rf"^{tmp_path}/7 is not a SavedModel: it has no saved_model\.pb\. ",
    ):
        versions.Versions(tmp_path)


def test_a_model_is_freed_once_the_server_and_all_requests_are_done(export_dir, rows):
    served = versions.Versions(export_dir)
    with served.use() as used:
        served.close()
        np.testing.assert_allclose(used.run("", rows)["click"], [4, 9.5])
    with pytest.raises(RuntimeError, match="closed Session"):
        used.run("", rows)
