"""An action that holds a job at a step until a test lets it continue."""

import os
import pathlib
import time

from monolith_tf.training import actions

_FOLDER, _STEP = "GATE_FOLDER", "GATE_STEP"


class Gate(actions.Action):
    """Waits at step `GATE_STEP` until the file `open` exists in `GATE_FOLDER`."""

    def next_step(self, step):
        """See base class."""
        gate = int(os.environ[_STEP])
        return gate if step < gate else None

    def act(self, run):
        """See base class."""
        folder = pathlib.Path(os.environ[_FOLDER])
        (folder / "held").touch()
        deadline = time.monotonic() + 240
        while not (folder / "open").exists():
            if time.monotonic() > deadline:
                raise TimeoutError("Nobody opened the gate.")
            time.sleep(0.05)
