"""The process of a side: `python -m sides.worker MODULE ARGUMENT ...`.

It takes lines of JSON, each the name and the arguments of a method of the module's
`Side(ARGUMENT, ...)`, and answers each with a line of JSON.
"""

import importlib
import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable

_SELF = pathlib.Path("/proc/self")


def seconds(call: Callable[[], object], calls: int = 1) -> tuple[float, float]:
    """Returns the seconds a call takes, on the clock and of all processors."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    clock, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    return clock / calls, cpu / calls


def peak_mib(call: Callable[[], object]) -> float | None:
    """Returns how far a call raises this process' memory; None but on Linux."""
    if not _SELF.exists():
        return None
    (_SELF / "clear_refs").write_text("5")  # The peak is now what there is.
    before = status_kib("VmRSS")
    call()
    return (status_kib("VmHWM") - before) / 1024


def status_kib(name: str) -> int:
    """Returns a line of this process' status on Linux: "VmRSS", "VmHWM"."""
    lines = (_SELF / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    """Answers until there is nothing more to be read."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What a library prints is no answer.
    module, *arguments = sys.argv[1:]
    side = importlib.import_module(module).Side(*arguments)
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(side, request.pop("method"))
        try:
            answer = {"result": method(**request)}
        except Exception:  # A benchmark may go on with its next case.
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
