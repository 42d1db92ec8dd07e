"""Writes a file that is complete, or as it was before."""

import os
import pathlib


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces the text of a file, or makes the file; the disk has it on return."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
