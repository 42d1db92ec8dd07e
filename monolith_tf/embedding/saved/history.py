"""What a store knows of its past: a delta holds what changed since a checkpoint."""


class History:
    """The steps since which all changes of a store are known, and its checkpoints.

    Args:
      is_tracked: Whether the store keeps the step of every row's last update.
    """

    def __init__(self, *, is_tracked: bool) -> None:
        self._is_tracked = is_tracked
        self._known_since = 0
        self._saved: list[tuple[int, str]] = []  # Step and id of each checkpoint.

    def check(self, since_step: int) -> None:
        """Raises ValueError unless all changes since a step are known."""
        if not self._is_tracked:
            raise ValueError(
                "`track_updates` must be True to tell what changed. "
                f"Received: since_step={since_step}, track_updates=False."
            )
        if since_step < self._known_since:
            raise ValueError(
                f"`since_step` must be at least {self._known_since}, since which "
                f"removals are known. Received: since_step={since_step}. Write a full "
                "checkpoint."
            )

    def saved_since(self, step: int) -> list[str]:
        """Returns the ids of the checkpoints of a step or later."""
        return [id_ for at, id_ in self._saved if at >= step]

    def last(self) -> list[tuple[int, str]]:
        """Returns step and id of the last checkpoint, if there is one."""
        return self._saved[-1:]

    def add(self, step: int | None, id_: str | None) -> None:
        """Notes a checkpoint that the store wrote or was restored from."""
        if step is not None and id_ is not None:
            self._saved.append((step, id_))

    def begin(self, step: int, *, keep_saved: bool) -> None:
        """Starts at the step of a checkpoint that was restored."""
        self._known_since = step
        if not keep_saved:
            self._saved = []

    def forget(self, before_step: int) -> None:
        """Drops what happened before a step."""
        self._known_since = max(self._known_since, before_step)
        self._saved = [entry for entry in self._saved if entry[0] >= before_step]
