"""Errors of an export."""


class ExportError(RuntimeError):
    """An export was not published; the message gives the reason."""
