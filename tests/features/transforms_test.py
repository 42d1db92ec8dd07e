"""Tests of transforms against NumPy."""

import numpy as np
import pytest

from monolith_tf.features import TransformSpec
from monolith_tf.features import transforms

VALUES = np.array([[-100.0, -0.5], [0.0, 1e-9], [0.5, 3.0], [1e6, 2.0]], np.float32)


def applied(*steps, found=None):
    return transforms.apply(VALUES, steps, found or {}).numpy()


def test_log1p():
    expected = np.sign(VALUES) * np.log1p(np.abs(VALUES))
    np.testing.assert_allclose(applied(TransformSpec(name="log1p")), expected, 1e-6)


def test_clip():
    for low, high in ((0, 2.5), (None, 1), (-1, None)):
        step = TransformSpec(name="clip", min=low, max=high)
        np.testing.assert_array_equal(applied(step), np.clip(VALUES, low, high))


@pytest.mark.parametrize(
    ("limits", "changed"),
    [(((0, 2.5),), 4), (((None, 1),), 3), (((-1, None), (None, 1e5)), 2), ((), 0)],
)
def test_clipped_values_are_counted(limits, changed):
    """NaN and values at a limit are not changed."""
    values = np.append(VALUES, [[np.nan, 1.0]], axis=0).astype(np.float32)
    steps = [TransformSpec(name="clip", min=low, max=high) for low, high in limits]
    assert transforms.count_clipped(values, steps, {}).numpy() == changed


def test_values_are_clipped_where_the_steps_before_have_brought_them():
    steps = [TransformSpec(name="log1p"), TransformSpec(name="clip", max=2)]
    steps.append(TransformSpec(name="bucketize", boundaries=(1,)))
    expected = np.sum(np.sign(VALUES) * np.log1p(np.abs(VALUES)) > 2)
    assert expected and transforms.count_clipped(VALUES, steps, {}) == expected


def test_zscore_with_numbers_of_the_config_or_of_the_data():
    step = TransformSpec(name="zscore", mean=2.0, std=4.0)
    np.testing.assert_allclose(applied(step), (VALUES - 2) / 4, rtol=1e-6)
    found = {"mean": [1.0, -1.0], "std": [2.0, 0.5]}
    np.testing.assert_allclose(
        applied(TransformSpec(name="zscore"), found=found),
        (VALUES - [1, -1]) / [2, 0.5],
        rtol=1e-6,
    )


def test_bucketize_counts_the_boundaries_reached():
    step = TransformSpec(name="bucketize", boundaries=(-0.5, 0.0, 2.0))
    found = applied(step)
    np.testing.assert_array_equal(found, [[0, 1], [2, 2], [2, 3], [3, 3]])
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.digitize(VALUES, step.boundaries))


def test_steps_run_in_their_order():
    log = TransformSpec(name="log1p")
    clip = TransformSpec(name="clip", min=0, max=2)
    assert applied(log, clip)[3, 0] == 2
    np.testing.assert_allclose(applied(clip, log)[3, 0], np.log(3), rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "place"),
    [((), None), (("log1p", "zscore"), 1), (("clip", "log1p"), None)],
)
def test_which_step_needs_the_data(steps, place):
    made = [
        TransformSpec(name=name, **({"min": 0} if name == "clip" else {}))
        for name in steps
    ]
    assert transforms.needs_statistics(made) == place
    given = TransformSpec(name="zscore", mean=0, std=1)
    assert transforms.needs_statistics([given]) is None
