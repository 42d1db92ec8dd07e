"""The process of a side: `python -m sides.worker MODULE ARGUMENT ...`.

It reads lines of JSON, each with the name and arguments of a method of the module's
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
    """Returns the seconds of a call: wall time, and CPU time of all cores."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    clock, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    return clock / calls, cpu / calls


def peak_mib(call: Callable[[], object]) -> float | None:
    """Returns how much a call raises this process' memory; None except on Linux."""
    if not _SELF.exists():
        return None
    (_SELF / "clear_refs").write_text("5")  # Resets the peak to the current memory.
    before = status_kib("VmRSS")
    call()
    return (status_kib("VmHWM") - before) / 1024


def status_kib(name: str) -> int:
    """Returns a line of this process' status on Linux: "VmRSS", "VmHWM"."""
    lines = (_SELF / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    """Answers requests until the end of input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Keeps a library's prints out of the answers.
    module, *arguments = sys.argv[1:]
    side = importlib.import_module(module).Side(*arguments)
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(side, request.pop("method"))
        try:
            answer = {"result": method(**request)}
        except Exception:  # A benchmark may continue with its next case.
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
