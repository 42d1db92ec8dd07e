"""Which SavedModel is chosen in a folder of versions."""

from monolith_tf.cli import saved_model


def test_a_version_without_a_model_is_passed_over(tmp_path, caplog):
    for number in ("7", "12", "888"):
        (tmp_path / number).mkdir()
    for number in ("7", "12"):
        (tmp_path / number / "saved_model.pb").write_bytes(b"")
    assert saved_model.find(tmp_path) == tmp_path / "12"
    assert caplog.messages == [f"{tmp_path}/888 is skipped: it has no saved_model.pb."]
