"""All rows of a store, written while steps run."""

import threading
from collections.abc import Callable

from monolith_tf.embedding.shard.marks import Mark


class LiveCopy:
    """A copy of all rows that is being written; `EmbeddingStore.copy` begins one.

    Rows that change meanwhile are in it as they were at some moment, or half changed.
    They are since `mark`: with a delta since that mark on top, it is a checkpoint.

    Attributes:
      directory: Its directory.
      mark: The moment at which it began.

    Args:
      directory: See there.
      mark: See there.
      write: Writes the copy; ends soon if the event that it receives is set.
    """

    def __init__(
        self, directory: str, mark: Mark, write: Callable[[threading.Event], object]
    ) -> None:
        self.directory = directory
        self.mark = mark
        self._write = write
        self._stop = threading.Event()
        self._error: BaseException | None = None
        # A process that ends does not wait for it.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether it is written, or has failed."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Waits until it is written.

        Raises:
          Exception: The error that ended it.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Gives it up, without waiting for the end."""
        self._stop.set()
        self.mark.release()

    def _run(self) -> None:
        try:
            self._write(self._stop)
        except BaseException as error:  # `wait` raises it.
            self._error = error
