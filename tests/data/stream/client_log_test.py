"""Tests of the log of Kafka clients."""

import logging

from monolith_tf.data.stream import client_log


def test_repeated_lines_are_logged_once_per_minute():
    now = [0.0]
    kept = client_log.OncePerMinute(clock=lambda: now[0])

    def is_logged(text):
        return kept.filter(logging.LogRecord("x", 40, "", 1, text, (), None))

    assert is_logged("FAIL: Connection refused (after 1ms)")
    assert not is_logged("FAIL: Connection refused (after 20ms)")
    assert is_logged("FAIL: another")
    now[0] = 59
    assert not is_logged("FAIL: Connection refused (after 0ms)")
    now[0] = 61
    assert is_logged("FAIL: Connection refused (after 0ms)")


def test_lines_reach_the_log_of_the_job(caplog):
    client_log.logger().error("FAIL: refused")
    assert "FAIL: refused" in caplog.text
