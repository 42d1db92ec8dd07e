"""Waits until the tasks of a job are there, and checks that they fit together."""

import os
import time
from collections.abc import Callable
from collections.abc import Collection

from monolith_tf.distribute import rivals
from monolith_tf.distribute import roster
from monolith_tf.distribute.sign_in import SignedIn
from monolith_tf.distribute.task import Task


def wait_for_all(
    model_dir: str | os.PathLike[str],
    task: Task,
    signed_in: SignedIn,
    *,
    timeout: float,
    optional: Callable[[], Collection[str]] = tuple,
    poll_secs: float = 0.2,
) -> dict[str, roster.Entry]:
    """Waits until every worker and parameter server serves this chief.

    Args:
      model_dir: The job's folder.
      task: The chief's task.
      signed_in: The chief's file.
      timeout: Seconds to wait.
      optional: Returns the names of workers that need not come, if another one does.
      poll_secs: Seconds between checks.

    Returns:
      Task name -> contents of its file, for the tasks that serve.

    Raises:
      RosterError: If one is missing, failed, or has other versions or addresses.
    """
    deadline = time.monotonic() + timeout
    others = task.others()
    while True:
        rivals.check_rival(task, signed_in)
        found = {other.name: roster.read(model_dir, other.name) for other in others}
        here = {}
        for other in others:
            entry = found[other.name]
            if entry is not None and entry.get("incarnation") == signed_in.nonce:
                _check_fits(other, entry)
                if entry.get("state") == "serving":
                    here[other.name] = entry
        spared = optional()
        missing = [o for o in others if o.name not in here and o.name not in spared]
        if not missing and any(o.kind == "worker" for o in others if o.name in here):
            return here
        if time.monotonic() > deadline:
            missing = missing or [o for o in others if o.name not in here]
            raise roster.RosterError(
                "\n".join(_absent(o, model_dir, timeout) for o in missing)
            )
        time.sleep(poll_secs)


def _absent(other: Task, model_dir: str | os.PathLike[str], timeout: float) -> str:
    where = roster.folder(model_dir)
    return (
        f"{other.name} at {other.address} did not sign in under {where} within "
        f"{timeout:g} s: it is not running, or its `model_dir` is another folder. All "
        "tasks must share the same `model_dir`."
    )


def _check_fits(other: Task, entry: roster.Entry) -> None:
    where = f"{other.name} at {other.address} (process {entry['pid']} on "
    where += f"{entry['host']})"
    if entry.get("state") == "failed":
        raise roster.RosterError(f"{where} failed: {entry.get('message')}")
    if entry["address"] != other.address:
        raise roster.RosterError(
            f"{where} has the address {entry['address']}. Give all tasks the same "
            "`cluster` in `TF_CONFIG`."
        )
    for name, version in roster.versions().items():
        theirs = entry["versions"].get(name)
        if theirs != version and not _same_python(name, theirs, version):
            raise roster.RosterError(
                f"{where} runs {name} {theirs}; the chief runs {version}. Install the "
                "same version everywhere."
            )


def _same_python(name: str, left: str, right: str) -> bool:
    """Returns whether two versions of Python differ at most in their patch level."""
    return name == "python" and left.split(".")[:2] == right.split(".")[:2]
