"""Where an error comes from: its own message, and the user's line that led to it.

An error raised in a model reaches the command wrapped several times: by AutoGraph ("in
user code:"), by Keras ("Exception encountered when calling layer"), and, at run time,
by the trace of the operation ("Graph execution error:").
"""

import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import monolith_tf

_WRAPPED = re.compile(
    r"in user code:|Exception encountered when calling (?P<callee>.*)\."
)
_ARGUMENTS = re.compile(r"\n\s*Call arguments received by ")
_PYTHON = "Traceback (most recent call last):"
_FRAME = re.compile(
    r'\s*File "(?P<file>.*)", line (?P<line>\d+), in (?P<function>.*?)(  \*+)?'
)
_OPERATION = re.compile(r"Detected at node '?(?P<name>[^\s']+)'? defined at .*")
_NODES = re.compile(r"\[\[\{\{node .*?\}\}\]\]|\{\{function_node .*?\}\}|\[Op:[^\]]*\]")
_NODE = re.compile(r"\{\{node (.*?)\}\}")
_NOISE = re.compile(
    r"\s*(Graph execution error:|in user code:|<stack traces unavailable>|"
    r":UNKNOWN:Error received from peer .*)?\s*"
)

_OWN = os.path.dirname(os.path.realpath(monolith_tf.__file__)) + os.sep
_INSTALLED = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_NOT_USERS = re.compile(
    r"__autograph_generated_file|[/\\]site-packages[/\\]"
    r"(absl|keras|numpy|pandas|pyarrow|pydantic|tensorflow\w*|tf_keras|wrapt)[/\\]"
)


class Frame(NamedTuple):
    """A line of a running program.

    Attributes:
      file: Path of its file.
      line: Number of the line, from 1.
      function: The function that contains it.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        file = os.path.relpath(self.file)
        if file.startswith(os.pardir):
            file = self.file
        place = f"{file}:{self.line} in {self.function}"
        linecache.checkcache(self.file)
        source = linecache.getline(self.file, self.line).strip()
        return f"{place}: {source}" if source else place


class Origin(NamedTuple):
    """An error without its wrappers.

    Attributes:
      error: The error that was raised first.
      message: Its text.
      place: The line of the user's program that led to it, or else the layer or
        operation that raised it; empty if none is known.
    """

    error: BaseException
    message: str
    place: str


def find(error: BaseException) -> Origin:
    """Returns where an error comes from."""
    chain = list(_unwrapped(error))[::-1]  # In the order they were raised.
    inner, operation = chain[0], ""
    message, frames = _text(inner), list[Frame]()
    if type(inner).__module__.startswith("tensorflow.") or _WRAPPED.match(message):
        message, frames, operation = _parse(message)
    for each in chain:
        frames += _frames(each)
    place = next((str(frame) for frame in _of_users(frames)), "")
    callees = [match["callee"] for e in chain if (match := _WRAPPED.match(_text(e)))]
    callee = next((callee for callee in callees if callee), "")
    if not place and callee:
        place = f"in {callee}"
    elif not place and operation:
        place = f"in the operation {operation}"
    return Origin(inner, _NODE.sub(r"\1", message), place)


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and, while it only wraps another, the wrapped one."""
    yield error
    inner = error.__cause__ or error.__context__
    if inner is not None and _WRAPPED.match(_text(error)):
        yield from _unwrapped(inner)


def _text(error: BaseException) -> str:
    # `str` of a TensorFlow runtime error also adds its class.
    message = getattr(error, "message", None)
    return message if isinstance(message, str) else str(error)


def _frames(error: BaseException) -> list[Frame]:
    """Returns the frames of an error, the innermost first."""
    frames = []
    if isinstance(error, SyntaxError) and error.filename is not None:
        frames.append(Frame(error.filename, error.lineno or 1, "<module>"))
    # AutoGraph runs generated files, and maps their lines to the source.
    metadata = getattr(error, "ag_error_metadata", None)
    for frame in () if metadata is None else metadata.translated_stack:
        frames.append(Frame(frame.filename, frame.lineno, frame.function_name))
    for plain in reversed(traceback.extract_tb(error.__traceback__)):
        frames.append(Frame(plain.filename, plain.lineno or 0, plain.name))
    return frames


def _of_users(frames: list[Frame]) -> Iterator[Frame]:
    """Yields the frames of the user's own files, then those of installed packages."""
    installed = []
    command = getattr(sys.modules["__main__"], "__file__", None)
    for frame in frames:
        file = os.path.realpath(frame.file)
        if not os.path.exists(file) or file == os.path.realpath(command or ""):
            continue
        if file.startswith(_OWN) or _NOT_USERS.search(file):
            continue
        if not file.startswith(_INSTALLED):
            yield frame
        elif "site-packages" in file:
            installed.append(frame)
    yield from installed


def _parse(text: str) -> tuple[str, list[Frame], str]:
    """Splits the message of an error raised at run time.

    Returns:
      The message alone, the frames that it lists (innermost first), and the name of the
      operation, or "".
    """
    text = _ARGUMENTS.split(text)[0]
    # An error of a Python function in a graph ends with a traceback.
    text, _, python = text.partition(_PYTHON)
    message: list[str] = []
    frames: list[Frame] = []
    operation = ""
    is_source = False
    for line in text.splitlines():
        if frame := _FRAME.fullmatch(line):
            frames.append(Frame(frame["file"], int(frame["line"]), frame["function"]))
        elif node := _OPERATION.fullmatch(line):
            operation = node["name"]
        elif not is_source and not _NOISE.fullmatch(line):
            message.append(_NODES.sub("", line).strip())
        is_source = frame is not None  # The line below shows its source.
    inner = [match for line in python.splitlines() if (match := _FRAME.fullmatch(line))]
    frames += [Frame(m["file"], int(m["line"]), m["function"]) for m in inner]
    return "\n".join(filter(None, message)), frames[::-1], operation
