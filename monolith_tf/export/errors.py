"""What can go wrong with an export."""


class ExportError(RuntimeError):
    """An export that was not published, with the reason."""
