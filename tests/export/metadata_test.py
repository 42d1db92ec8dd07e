import pytest

from monolith_tf.export import errors
from monolith_tf.export import metadata


def test_what_is_written_is_read(tmp_path):
    metadata.write(tmp_path, {"step": 3})
    assert metadata.read(tmp_path) == {"format": 1, "step": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "{path} is not an export of `monolith-tf export`: assets.extra/"
               "monolith_tf.json is missing."),
        ("{", "{path}/assets.extra/monolith_tf.json is damaged: "),
        ("[]", "{path}/assets.extra/monolith_tf.json must be of format 1. Export"),
        ('{"format": 9}', "{path}/assets.extra/monolith_tf.json must be of format 1."),
    ],
)  # fmt: skip
def test_errors(tmp_path, text, message):
    if text is not None:
        (tmp_path / "assets.extra").mkdir()
        (tmp_path / "assets.extra" / "monolith_tf.json").write_text(text)
    with pytest.raises(errors.ExportError) as caught:
        metadata.read(tmp_path)
    assert str(caught.value).startswith(message.format(path=tmp_path))
