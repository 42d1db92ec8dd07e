"""A job that goes back gets a line of its own, and one that goes on does not."""

import pytest

from monolith_tf import lineage as lineage_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import lineage_mark

_JOB = lineage_lib.Lineage().branched(0)


def _checkpoint(tmp_path, step, lineage=_JOB):
    state = {"job": lineage.job, "lineage": lineage.to_json()}
    return checkpoint_lib.Checkpoint(tmp_path, {"step": step, "state": state})


def test_a_job_that_goes_on_keeps_its_line(tmp_path):
    assert lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5)) == _JOB
    lineage_mark.write(tmp_path, _JOB, 5)
    assert lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5)) == _JOB
    assert lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 6)) == _JOB


def test_a_job_that_had_been_further_branches_off(tmp_path):
    lineage_mark.write(tmp_path, _JOB, 9)
    found = lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5))
    assert found.branches[:-1] == _JOB.branches
    assert found.branches[-1].step == 5
    assert found.branches[-1].id != _JOB.job
    # And once more, from the step before it branched off.
    lineage_mark.write(tmp_path, found, 5)
    again = lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5))
    assert again.branches[:-1] == _JOB.branches
    assert again != found


def test_a_checkpoint_of_0_1_0_has_the_line_of_its_job(tmp_path):
    old = checkpoint_lib.Checkpoint(tmp_path, {"step": 5, "state": {"job": "old"}})
    assert lineage_mark.resumed(tmp_path, old).to_json() == [["old", 0]]


def test_a_damaged_mark_is_an_error(tmp_path):
    (tmp_path / "lineage.json").write_text('{"newest": 3}')
    with pytest.raises(
        checkpoint_lib.CheckpointError, match=r"lineage\.json is damaged"
    ):
        lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5))
