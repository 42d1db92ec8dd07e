"""Tests of the spans kept on disk."""

import random

from monolith_tf.data.stream import spans as spans_lib
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.stream.spans import SpanLog


def made(count, first=0):
    return [
        Span(i, (OffsetRange(0, 10 * i, 10 * i + 10), OffsetRange(3, i, i + 1)))
        for i in range(first, first + count)
    ]


def offsets(number):
    return {0: 10 * number, 3: number}


def test_spans_are_there_after_a_restart(tmp_path):
    log = SpanLog(tmp_path)
    log.append(made(3))
    log.append(made(4, first=3))
    for number in range(8):
        again = SpanLog(tmp_path).resume(number, offsets(number))
        assert again == made(7 - number, first=number)


def test_the_log_goes_on_after_a_restart(tmp_path):
    SpanLog(tmp_path).append(made(3))
    log = SpanLog(tmp_path)
    assert log.resume(2, offsets(2)) == made(1, first=2)
    log.append(made(2, first=3))
    assert SpanLog(tmp_path).resume(0, offsets(0)) == made(5)


def test_a_line_cut_anywhere_is_removed(tmp_path):
    SpanLog(tmp_path).append(made(4))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    ends = [0] + [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        complete = sum(end <= length for end in ends) - 1
        assert SpanLog(tmp_path).resume(0, offsets(0)) == made(complete)
        assert path.read_bytes() == whole[: ends[complete]]


def test_a_flipped_bit_ends_the_log(tmp_path):
    draw = random.Random(3)
    SpanLog(tmp_path).append(made(5))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for _ in range(100):
        place = draw.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(damaged))
        line = whole[:place].count(b"\n")
        assert SpanLog(tmp_path).resume(0, offsets(0)) == made(line)


def test_spans_from_other_offsets_are_removed(tmp_path):
    SpanLog(tmp_path).append(made(5))
    log = SpanLog(tmp_path)
    assert log.resume(2, {0: 25, 3: 2}) == []
    log.append([Span(2, (OffsetRange(0, 25, 30),))])
    assert SpanLog(tmp_path).resume(1, offsets(1)) == made(1, first=1)


def test_old_files_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(spans_lib, "_SEGMENT_SPANS", 2)
    log = SpanLog(tmp_path)
    for number in range(7):
        log.append(made(1, first=number))
    assert len(list(tmp_path.iterdir())) == 4
    log.forget_before(3)
    assert len(list(tmp_path.iterdir())) == 3
    for number in (2, 3, 6):
        again = SpanLog(tmp_path).resume(number, offsets(number))
        assert again == made(7 - number, first=number)
