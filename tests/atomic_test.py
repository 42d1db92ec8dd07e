"""Tests of `atomic`: a file has the new text, or the one it had."""

from unittest import mock

import pytest

from monolith_tf import atomic


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "mark.json"
    for text in ("one", "zwei, größer"):
        atomic.write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_former_text(tmp_path):
    path = tmp_path / "mark.json"
    atomic.write_text(path, "one")
    full = OSError("disk is full")
    with mock.patch("os.fsync", side_effect=full), pytest.raises(OSError, match="full"):
        atomic.write_text(path, "two")
    assert path.read_text(encoding="utf-8") == "one"
