"""Writes a file that is complete, or as it was before."""

import os
import pathlib


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces the text of a file, or makes the file; the disk has it on return."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Replaces the content of a file, or makes the file; as `write_text`."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
