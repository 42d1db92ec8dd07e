"""Tests of planning which messages are read next."""

import collections

import numpy as np
import pytest

from monolith_tf.data.stream.events import LostMessagesError
from monolith_tf.data.stream.plan import Plan
from monolith_tf.data.stream.plan import start_offsets
from monolith_tf.data.stream.spans import SpanLog
from monolith_tf.data.stream.spec import StreamSpec
from tests.data.stream.memory_log import MemoryLog

_SIZE = 10


def spec(**more):
    return StreamSpec(brokers="h:1", topic="t", max_wait=2, **more)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def plan(tmp_path, clock):
    def make(log, number=0, offsets=None, topic_id=None, **more):
        return Plan(
            log,
            SpanLog(tmp_path),
            spec(**more),
            lambda: _SIZE,
            number=number,
            offsets=offsets,
            topic_id=topic_id,
            clock=clock,
        )

    return make


def covered(spans):
    """Returns (partition, offset) -> how often it is in spans."""
    found = collections.Counter()
    for span in spans:
        for partition, begin, end in span.ranges:
            assert begin < end
            found.update((partition, offset) for offset in range(begin, end))
    return found


def test_full_spans_are_planned_at_once_and_short_ones_after_a_wait(plan, clock):
    log = MemoryLog()
    log.send([b""] * 25)
    made = plan(log)
    assert [s.ranges[0][1:] for s in made.next(9)] == [(0, 10), (10, 20)]
    assert made.next(9) == []
    clock.now += 1.9
    assert made.next(9) == []
    clock.now += 0.2
    assert [s.ranges[0][1:] for s in made.next(9)] == [(20, 25)]
    assert made.next(9) == []
    log.send([b""] * 1)
    assert made.next(9) == []  # The wait begins with the first message.
    clock.now += 2
    assert [s.ranges[0][1:] for s in made.next(9)] == [(25, 26)]


@pytest.mark.parametrize("seed", range(10))
def test_every_message_is_in_one_span_whatever_happens(plan, clock, seed):
    draw = np.random.default_rng(seed)
    log = MemoryLog(partitions=3)
    made, spans, saved = plan(log), [], (0, {0: 0, 1: 0, 2: 0})
    for _ in range(200):
        action = draw.integers(0, 7)
        if action <= 1:
            log.send([b""] * int(draw.integers(1, 30)), int(draw.integers(0, 3)))
        elif action == 2:
            clock.now += 1
        elif action <= 4:
            new = made.next(int(draw.integers(1, 5)))
            spans = spans[: made.number - len(new)] + new
        elif action == 5:
            saved = made.number, dict(made.offsets)
        else:  # Killed; resumes from the checkpoint.
            made = plan(log, *saved)
            before = spans[saved[0] :]
            again = made.next(len(before)) if before else []
            assert again == before
    while new := made.next(3) or made.lag:
        spans += [] if isinstance(new, int) else new
        clock.now += 10
    assert [span.number for span in spans] == list(range(len(spans)))
    assert covered(spans) == {
        (p, o): 1 for p, values in log.values.items() for o in range(len(values))
    }


def test_until_the_end_is_the_end_when_the_job_starts(plan):
    log = MemoryLog(partitions=2)
    log.send([b""] * 13, 0)
    log.send([b""] * 4, 1)
    made = plan(log, until="end")
    log.send([b""] * 50, 0)
    spans = made.next(99)
    assert made.is_done
    assert made.next(99) == []
    assert covered(spans) == {
        **{(0, o): 1 for o in range(13)},
        **{(1, o): 1 for o in range(4)},
    }


def test_starts_and_ends_at_times_and_offsets(plan):
    log = MemoryLog(partitions=2)
    log.send([b""] * 20, 0, times=range(0, 20_000, 1000))
    log.send([b""] * 5, 1, times=range(7000, 12_000, 1000))
    made = plan(log, start="1970-01-01T00:00:08Z", until="1970-01-01T00:00:10Z")
    assert covered(made.next(99)) == {(0, 8): 1, (0, 9): 1, (1, 1): 1, (1, 2): 1}
    assert made.is_done
    assert start_offsets(log, spec(start="latest")) == {0: 20, 1: 5}
    assert start_offsets(log, spec(start={1: 3})) == {0: 0, 1: 3}
    with pytest.raises(ValueError, match="partition 1 of topic 't' has offsets 0 to 4"):
        start_offsets(log, spec(start={1: 6}))
    with pytest.raises(ValueError, match="no partition 2"):
        start_offsets(log, spec(start={2: 0}))


def test_lost_messages_are_an_error_or_counted(plan):
    log = MemoryLog()
    log.send([b""] * 40)
    made = plan(log)
    made.next(1)
    log.low[0] = 25
    with pytest.raises(LostMessagesError, match=r"at offset 10, is gone.*15 messages"):
        made.next(1)
    made = plan(log, made.number, made.offsets, on_lost="skip")
    assert made.next(1)[0].ranges == ((0, 25, 35),)
    assert made.lost == 15


def test_spans_planned_before_are_planned_again_if_messages_are_gone(plan):
    log = MemoryLog()
    log.send([b""] * 40)
    plan(log).next(4)
    log.low[0] = 25
    with pytest.raises(LostMessagesError, match=r"at offset 10, is gone.*15 messages"):
        plan(log, 1, {0: 10}).next(1)
    made = plan(log, 1, {0: 10}, on_lost="skip", until="end")
    spans = made.next(9)
    assert [s.number for s in spans] == [1, 2]
    assert covered(spans) == {(0, offset): 1 for offset in range(25, 40)}
    assert made.lost == 15
    assert plan(log, 1, {0: 25}).next(9) == spans


def test_until_needs_an_offset_for_each_partition(plan):
    with pytest.raises(ValueError, match="none for partition 1"):
        plan(MemoryLog(partitions=2), until={0: 5})


def test_a_new_partition_is_read_from_its_start(plan, clock):
    log = MemoryLog()
    log.send([b""] * 10)
    made = plan(log, start="latest")
    log.add_partition()
    log.send([b""] * 10, 1)
    (span,) = made.next(9)
    assert span.ranges == ((1, 0, 10),)
    assert made.lag == 0
    log.send([b""] * 3, 0)
    assert made.next(9) == []
    assert made.lag == 3


def test_a_topic_made_again_is_an_error_or_read_from_its_start(plan):
    log = MemoryLog()
    log.id = "first"
    log.send([b""] * 35)
    made = plan(log)
    assert made.topic_id == "first"
    (span,) = made.next(1)
    assert span.ranges == ((0, 0, 10),)
    log.id = "second"
    with pytest.raises(LostMessagesError, match="deleted and created again"):
        made.next(1)
    with pytest.raises(LostMessagesError, match=r"`data\.stream\.on_lost` to `skip`"):
        plan(log, made.number, made.offsets, "first")
    made = plan(log, made.number, made.offsets, "first", on_lost="skip")
    assert made.topic_id == "second"
    assert made.next(1) == [(1, ((0, 0, 10),))]
    # Planned again from here, as after a kill.
    assert plan(log, 2, {0: 10}, "second").next(1)[0].number == 2


def test_an_id_that_is_not_known_is_no_error(plan):
    log = MemoryLog()
    log.send([b""] * 35)
    assert plan(log, 1, {0: 10}, "first").next(1) == [(1, ((0, 10, 20),))]
    log.id = "first"
    assert plan(log, 1, {0: 10}).next(1) == [(1, ((0, 10, 20),))]


def test_a_topic_that_ends_before_the_position_is_an_error_after_a_while(plan, clock):
    log = MemoryLog()
    log.send([b""] * 35)
    made = plan(log, 4, {0: 40})
    assert made.next(1) == []
    clock.now += 20
    assert made.next(1) == []
    log.send([b""] * 15)  # Another broker has taken over.
    assert made.next(1) == [(4, ((0, 40, 50),))]
    made = plan(log, 5, {0: 60})
    assert made.next(1) == []
    clock.now += 31
    with pytest.raises(LostMessagesError, match=r"offset 60, but .* ends at .* 50"):
        made.next(1)
