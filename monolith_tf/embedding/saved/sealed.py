"""Manifests that reveal any change, and checksums of files.

A sealed manifest is JSON whose last entry is the SHA-256 of all the text before it. Its
first entry says that a checksum must follow, so that damage in one place cannot make it
look like a manifest of version 0.1.0, which had no seal.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator

from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_KEY = "sealed"
_SEAL = re.compile(rb', "sha256": "([0-9a-f]{64})"}')
_SEAL_BYTES = len(', "sha256": ""}') + 64


class DamagedError(ValueError):
    """Files are not as they were written; the message names the first one."""


def seal(manifest: JsonMapping) -> str:
    """Returns a manifest as JSON with a checksum for `unseal`."""
    text = json.dumps({_KEY: "sha256", **manifest})[:-1]
    return f'{text}, "sha256": "{hashlib.sha256(text.encode()).hexdigest()}"}}'


def unseal(path: str | os.PathLike[str]) -> tuple[JsonDict, bool]:
    """Reads a manifest.

    Args:
      path: Path of its file.

    Returns:
      The manifest as `seal` received it, and whether it had a seal to check.

    Raises:
      DamagedError: If it is not as it was written.
    """
    with open(path, "rb") as file, reading(path):
        data = file.read()
    return parse(data, path)


def parse(data: bytes, path: str | os.PathLike[str]) -> tuple[JsonDict, bool]:
    """As `unseal`, of a file's content; the path is only for the message."""
    end = _SEAL.fullmatch(data, max(0, len(data) - _SEAL_BYTES))
    is_right = (
        end and hashlib.sha256(data[: end.start()]).hexdigest() == end[1].decode()
    )
    if end and not is_right:
        raise DamagedError(f"{path} is damaged: it differs from its checksum.")
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}.") from None
    if not isinstance(manifest, dict) or (_KEY in manifest and not end):
        raise DamagedError(f"{path} is damaged: its checksum is missing.")
    manifest.pop(_KEY, None)
    if end:
        del manifest["sha256"]
    return manifest, end is not None


def digest(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file, read piece by piece."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(data: bytes) -> str:
    """Returns the SHA-256 of a file's content."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises DamagedError if a file is missing, or the disk cannot read it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):
            raise
        raise DamagedError(f"{path} is damaged: {error.strerror}.") from error
