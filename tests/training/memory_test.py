"""The error of a step that runs out of memory says what uses it and what to do."""

import pathlib
import types

import pytest
import tensorflow as tf

from monolith_tf.embedding.shard import sizing
from monolith_tf.training import loop
from monolith_tf.training import memory
from tests.training import fakes

_TEXT = "OOM when allocating tensor with shape[9,4]\n\t [[{{node Empty}}]]\nHint: ..."


def _table(name, rows, num_bytes):
    return sizing.TableInfo(name, 1, 4, rows, num_bytes, ("/cpu:0",))


def _exhausted(*_):
    raise tf.errors.ResourceExhaustedError(None, None, _TEXT)


class _Late(fakes.Stepper):
    """Runs out of memory while running steps finish."""

    def finish(self):
        _exhausted()


def _train(run, stepper):
    loop.train(run, stepper, [], steps_per_loop=3, explain=str)


def test_the_largest_tables_come_first_with_the_ways_out():
    run = fakes.run(total_steps=10)
    run.step.network.store.describe = lambda: [
        _table("small", 10, 1023),
        _table("large", 2_000_000, 3 << 30),
        _table("middle", 1500, 1536 << 10),
        _table("huge", 5_000_000_000, 2 << 40),
    ]
    run.saved = types.SimpleNamespace(path=pathlib.Path("job/ckpt-00000003"))
    stepper = fakes.Stepper(at_step=lambda step: step > 3 and _exhausted())
    with pytest.raises(memory.OutOfMemoryError) as caught:
        _train(run, stepper)
    text = str(caught.value)
    assert "after step 3; the same command resumes from job/ckpt-00000003." in text
    assert (
        "Its tables: `huge` 5,000,000,000 rows, 2.0 TiB; `large` 2,000,000 rows, "
        "3.0 GiB; `middle` 1,500 rows, 1.5 MiB; `small` 10 rows, 1.0 KiB. Give"
    ) in text
    for way_out in ("cluster.ps", "max_bytes", "expire_after_days", "data.batch_size"):
        assert way_out in text
    assert text.endswith("TensorFlow says: OOM when allocating tensor with shape[9,4]")
    assert isinstance(caught.value.__cause__, tf.errors.ResourceExhaustedError)
    assert not run.checkpoints.steps


def test_steps_that_are_finished_at_the_end_say_it_too():
    run = fakes.run(total_steps=3)
    with pytest.raises(
        memory.OutOfMemoryError, match=r"no checkpoint yet\. Its tables"
    ):
        _train(run, _Late())


def test_many_tables_are_summed_up():
    run = fakes.run()
    run.step.network.store.describe = lambda: [
        _table(f"t{number}", 1, (20 - number) << 10) for number in range(13)
    ]
    text = memory.explain(run, tf.errors.ResourceExhaustedError(None, None, "x"))
    assert "`t9` 1 rows, 11.0 KiB; 3 smaller ones, 27.0 KiB." in text
    run.step.network.store.describe = lambda: [
        _table(f"t{number}", 1, 1 << 20) for number in range(10)
    ]
    text = memory.explain(run, tf.errors.ResourceExhaustedError(None, None, "x"))
    assert "`t9` 1 rows, 1.0 MiB. Give" in text


def test_tables_that_cannot_be_counted_hide_nothing():
    run = fakes.run()
    run.step.network.store.describe = _exhausted
    text = memory.explain(run, tf.errors.ResourceExhaustedError(None, None, "x"))
    assert "Its tables could not be counted (ResourceExhaustedError). Give" in text


def test_other_errors_stay_what_they_are():
    def fail(step):
        raise tf.errors.InvalidArgumentError(None, None, "shapes")

    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes"):
        _train(fakes.run(total_steps=10), fakes.Stepper(at_step=fail))
