import pytest

from monolith_tf.export import spec


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"every_steps": 0},
            "`every_steps` must be at least 1. Received: every_steps=0. Omit it to "
            "export only with `monolith-tf export`.",
        ),
        (
            {"keep_versions": 0},
            "`keep_versions` must be at least 1. Received: keep_versions=0.",
        ),
        (
            {"verify_rows": -1},
            "`verify_rows` must not be negative. Received: verify_rows=-1.",
        ),
        (
            {"spare_rows": -2},
            "`spare_rows` must not be negative. Received: spare_rows=-2.",
        ),
    ],
)
def test_errors(values, message):
    with pytest.raises(ValueError) as caught:
        spec.ExportSpec(**values)
    assert str(caught.value) == message


def test_least_values():
    made = spec.ExportSpec(every_steps=1, keep_versions=1, verify_rows=0)
    assert made.verify_rows == 0
