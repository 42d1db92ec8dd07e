"""A job that goes back becomes a new branch; one that continues does not."""

import json
import shutil

import pytest

from monolith_tf import lineage as lineage_lib
from monolith_tf import testing
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import lineage_mark

_JOB = lineage_lib.Lineage().branched(0)


def _checkpoint(tmp_path, step, lineage=_JOB):
    state = {"job": lineage.job, "lineage": lineage.to_json()}
    return checkpoint_lib.Checkpoint(tmp_path, {"step": step, "state": state})


def _branched(lineage, step):
    """Returns whether a lineage is a new branch of the job's."""
    *former, last = lineage.branches
    return tuple(former) == _JOB.branches and last.step == step


def test_a_job_that_goes_on_keeps_its_line(tmp_path):
    lineage_mark.write(tmp_path, _JOB, 5)
    assert lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5)) == _JOB
    assert lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 6)) == _JOB


def test_a_job_that_had_been_further_branches_off(tmp_path):
    lineage_mark.write(tmp_path, _JOB, 9)
    found = lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5))
    assert found.branches[:-1] == _JOB.branches
    assert found.branches[-1].step == 5
    assert found.branches[-1].id != _JOB.job
    # And again, from the step before it branched.
    lineage_mark.write(tmp_path, found, 5)
    again = lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5))
    assert again.branches[:-1] == _JOB.branches
    assert again != found


def test_a_copy_branches_off_and_its_original_does_not(tmp_path):
    original = tmp_path / "original"
    lineage_mark.write(original, _JOB, 5)
    found = []
    for name in ("copy", "another"):
        shutil.copytree(original, tmp_path / name)
        with testing.TestCase().assertLogs("absl", "WARNING") as logs:
            found.append(
                lineage_mark.resumed(tmp_path / name, _checkpoint(tmp_path, 5))
            )
        (line,) = logs.output
        assert f"{tmp_path / name}/lineage.json is not where it was written" in line
        assert "have rows of steps later than 5 are brought back" in line
        assert _branched(found[-1], 5)
    assert found[0] != found[1]
    assert lineage_mark.resumed(original, _checkpoint(tmp_path, 5)) == _JOB
    # After the warning, the copy is a job like any other, even if its folder moves.
    lineage_mark.write(tmp_path / "copy", found[0], 6)
    checkpoint = _checkpoint(tmp_path, 6, found[0])
    (tmp_path / "copy").rename(tmp_path / "moved")
    assert lineage_mark.resumed(tmp_path / "moved", checkpoint) == found[0]


def test_the_same_place_of_another_device_is_a_copy(tmp_path):
    lineage_mark.write(tmp_path, _JOB, 5)
    path = tmp_path / "lineage.json"
    inode = path.stat().st_ino
    mark = json.loads(path.read_text())
    mark["file"]["device"] += 1
    path.write_text(json.dumps(mark))
    assert path.stat().st_ino == inode
    assert _branched(lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5)), 5)


def test_checkpoints_that_were_copied_alone_branch_off(tmp_path):
    with testing.TestCase().assertLogs("absl", "WARNING") as logs:
        found = lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5))
    assert "lineage.json is missing" in logs.output[0]
    assert _branched(found, 5)
    # The same for 0.1.0, whose jobs had only an identity.
    old = checkpoint_lib.Checkpoint(tmp_path, {"step": 5, "state": {"job": "old"}})
    *former, last = lineage_mark.resumed(tmp_path, old).to_json()
    assert (former, last[1]) == ([["old", 0]], 5)


def test_a_damaged_mark_is_an_error(tmp_path):
    (tmp_path / "lineage.json").write_text('{"newest": 3}')
    with pytest.raises(
        checkpoint_lib.CheckpointError, match=r"lineage\.json is damaged"
    ):
        lineage_mark.resumed(tmp_path, _checkpoint(tmp_path, 5))


def test_a_folder_owns_what_was_trained_in_it(tmp_path):
    original = tmp_path / "original"
    lineage_mark.write(original, _JOB, 5)
    later = _JOB.branched(3)
    lineage_mark.write(original, later, 4)
    own = [_JOB.job, later.branches[-1].id]
    assert lineage_mark.owns(original, own)
    assert not lineage_mark.owns(original, [*own, "other"])
    # An earlier step of the same line does not lower what was reached.
    lineage_mark.write(original, later, 2)
    assert json.loads((original / "lineage.json").read_text())["newest"] == 4
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    assert not lineage_mark.owns(copy, own[:1])
    lineage_mark.write(copy, later, 6)
    assert not lineage_mark.owns(copy, own[:1])
    assert lineage_mark.owns(copy, own[1:])
    original.rename(tmp_path / "moved")
    assert lineage_mark.owns(tmp_path / "moved", own)
