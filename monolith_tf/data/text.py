"""Checks that bytes are text: files must be UTF-8."""

import pyarrow as pa
import pyarrow.compute as pc

SAMPLE_BYTES = 1 << 16
"""How many bytes at the beginning of a file `check` needs."""

_COMMAND = "`iconv -f {} -t UTF-8 FILE > NEW_FILE`"

CONVERT = (
    f"If the file is in another encoding, convert it: {_COMMAND.format('LATIN1')}."
)
"""What to do about bytes that are not text."""

# UTF-32 first: its little endian mark begins with that of UTF-16.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_MIN_ZERO_SHARE = 0.3


def check(file: str, beginning: bytes) -> None:
    """Raises ValueError if a file begins like UTF-16 or UTF-32.

    Args:
      file: Its path.
      beginning: Its first bytes, decompressed.
    """
    encoding = next(
        (name for mark, name in _MARKS.items() if beginning.startswith(mark)), None
    )
    if encoding is None and b"\0" in beginning:
        # Without a mark: every other byte of Latin letters is 0.
        for first, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
            half = beginning[first::2]
            if half.count(0) > _MIN_ZERO_SHARE * len(half):
                encoding = encoding or name
    if encoding is not None:
        raise ValueError(
            f"{file}: this looks like {encoding}, but files must be UTF-8. Convert it: "
            f"{_COMMAND.format(encoding)}."
        )


def not_text(cells: pa.Array) -> dict[int, str]:
    """Returns place -> problem of each cell that is not text.

    Args:
      cells: Binary, or null.
    """
    try:
        nul = pc.match_substring(cells.cast(pa.string()), "\0")
    except pa.ArrowInvalid:
        pass
    else:
        if not pc.any(nul).as_py():
            return {}
    wrong = {}
    for place, cell in enumerate(cells.to_pylist()):
        if cell is None:
            continue
        try:
            cell.decode()
        except UnicodeDecodeError:
            wrong[place] = f"{cell!r} is not UTF-8 text"
        else:
            if b"\0" in cell:
                wrong[place] = f"{cell!r} has a NUL byte"
    return wrong
