"""Bad updates are stopped at the first server, and updates can be rolled back."""

import numpy as np
import pytest

from monolith_tf.cli import main
from monolith_tf.serving import checkpoint_source
from monolith_tf.serving import guard
from monolith_tf.serving import publishing
from tests.experiment import clicking_job


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trained job, an export of it, and a checkpoint of later steps."""
    job = clicking_job.Job(tmp_path_factory.mktemp("job"))
    job.train("trainer.epochs=3")
    version = job.export()
    job.write(640, users=clicking_job.USERS + 20)
    with clicking_job.serving(version) as address:
        # It also keeps golden rows.
        job.train("trainer.epochs=1", *job.publish_to([address]))
    return job, version


@pytest.fixture
def pair(exported):
    _, version = exported
    with (
        clicking_job.serving(version) as one,
        clicking_job.serving(version) as two,
    ):
        yield one, two


class _Source(checkpoint_source.CheckpointSource):
    """The newest checkpoint, with something wrong."""

    def __init__(self, model_dir, *, scale=1.0, bad_row=None):
        super().__init__(model_dir)
        self._scale = scale
        self._bad_row = bad_row

    def dense(self):
        found = dict(super().dense())
        name = next(path for path in found if path.endswith("kernel"))
        return found | {name: found[name] * np.float32(self._scale)}

    def updated(self, since):
        for rows in super().updated(since):
            weights = rows.weights.copy()
            if self._bad_row is not None:
                weights[self._bad_row, 1] = np.nan
            yield rows._replace(weights=weights)


def _publisher(job, addresses, **wrong):
    model_dir = job.folder / "model"
    return publishing.Publisher(
        model_dir, addresses, source=lambda: _Source(model_dir, **wrong)
    )


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"scale": 1000.0}, r"log loss of `click` .* rises from|mean prediction of"),
        ({"bad_row": 3}, r"the row of id \d+ of table `user` is not finite"),
    ],
)
def test_a_bad_update_is_stopped_before_a_second_server(exported, pair, wrong, why):
    job, _ = exported
    before = [clicking_job.state(address) for address in pair]
    with _publisher(job, pair, **wrong) as publisher:
        outcomes = publisher.publish()
    for outcome in outcomes.values():
        assert isinstance(outcome, guard.RefusedError)
        assert outcome.args == next(iter(outcomes.values())).args
        with pytest.raises(guard.RefusedError, match=why):
            raise outcome
    assert [clicking_job.state(address) for address in pair] == before
    # What is good is taken afterwards.
    with _publisher(job, pair) as publisher:
        publisher.publish()
    with clicking_job.serving(job.export()) as fresh:
        for address in pair:
            assert clicking_job.state(address) == clicking_job.state(fresh)


def test_flipped_labels_are_stopped(tmp_path):
    other = clicking_job.Job(tmp_path)
    other.train("trainer.epochs=3")
    with (
        clicking_job.serving(other.export()) as one,
        clicking_job.serving(other.export()) as two,
    ):
        good = other.publish_to([one, two])
        other.train("trainer.epochs=4", *good)
        wrong = other.write(6400, flipped=True, name="flipped")
        other.train(f"data.train={wrong}", *good)
        records = other.records("publish")
        assert sum(record.get("refusals", 0) for record in records) > 0
        assert sum(record.get("rows", 0) for record in records) > 0
        predicted = clicking_job.served(one)
        np.testing.assert_array_equal(predicted, clicking_job.served(two))
        clicks = predicted[: clicking_job.USERS] > 0.5
        assert np.mean(clicks == (np.arange(clicking_job.USERS) % 2 == 0)) > 0.9
        (why, *_) = [r["refused"] for r in records if "refused" in r]
        assert "the log loss of `click` on" in why


def test_a_rollback_is_exact(exported, pair):
    job, _ = exported
    before = [clicking_job.state(address) for address in pair]
    with publishing.Publisher(job.folder / "model", pair) as publisher:
        publisher.publish()
        after = [clicking_job.state(address) for address in pair]
        assert after[0] == after[1] != before[0]
        undone = publisher.roll_back()
        assert [found.to_step for found in undone.values()] == [before[0]["step"]] * 2
        assert [clicking_job.state(address) for address in pair] == before
        again = publisher.roll_back()
        assert all("not known" in str(found) for found in again.values())
        publisher.publish()
        assert [clicking_job.state(address) for address in pair] == after


def test_the_command_takes_golden_rows_and_rolls_back(exported, pair, capsys):
    job, _ = exported
    model_dir, one = job.folder / "model", pair[0]
    before = clicking_job.state(one)

    def call(*arguments):
        words = ["monolith-tf", "publish", str(model_dir), "--to", one, *arguments]
        status = main.main(main.parse(words))
        return status, *capsys.readouterr()

    kept = (model_dir / "golden_rows.pb").read_bytes()
    right = job.write(200, name="right")
    status, out, err = call("--golden", str(right))
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "Published"
    assert clicking_job.state(one)["step"] > before["step"]
    status, out, err = call("--rollback")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "Rolled back"
    assert clicking_job.state(one) == before
    status, _, err = call("--rollback")
    assert status == 1
    assert "it is not known what the last update replaced" in err
    assert (model_dir / "golden_rows.pb").read_bytes() == kept
    assert call("--rollback", "--every", "1")[0] == 2
    (model_dir / "published" / "on_hold").unlink()
