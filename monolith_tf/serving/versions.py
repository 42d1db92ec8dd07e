"""The newest version of a model, replaced while requests are answered."""

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable
from collections.abc import Iterator

import grpc
from absl import logging

from monolith_tf.export import versions as export_versions
from monolith_tf.serving import errors
from monolith_tf.serving import model as model_lib


@dataclasses.dataclass
class _Held:
    """A model and its number of users: the server, while it is current, and requests.

    The last one to release it closes it, so a request never runs on a closed session.
    """

    model: model_lib.Model
    holders: int = 1


class Versions:
    """Serves the highest version in a folder, and watches for a higher one.

    A new version is loaded and warmed up next to the old one and takes over at once;
    the old one finishes its requests before it is freed. A version that does not load
    is logged and skipped until its files change; so is a folder without a model.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        warm_up: Callable[[model_lib.Model], None] = lambda model: None,
    ) -> None:
        """Loads the highest version.

        Args:
          directory: The folder that contains one for each version.
          warm_up: Called with every model before it answers requests.

        Raises:
          ServingError: If there is no version, or the highest one does not load.
        """
        self._directory = directory
        self._warm_up = warm_up
        self._lock = threading.Lock()
        self._passed_over: set[pathlib.Path] = set()
        self._failed: tuple[pathlib.Path, object] | None = None
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._current = _Held(self._load(self._newest()))

    def watch(self, every_secs: float) -> None:
        """Starts to poll for new versions."""

        def look() -> None:
            while not self._stop.wait(every_secs):
                self.refresh()

        self._watcher = threading.Thread(target=look, name="versions", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stops polling and frees the model once it is unused."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
        self._release(self._current)

    @property
    def version(self) -> int:
        """The number of the current version."""
        return self._current.model.version

    @contextlib.contextmanager
    def use(self, version: int | None = None) -> Iterator[model_lib.Model]:
        """Yields the model for a request; it stays loaded until the request is done.

        Args:
          version: The requested number; None takes the current one.

        Raises:
          RequestError: If another version is requested.
        """
        with self._lock:
            held = self._current
            if version not in (None, held.model.version):
                raise errors.RequestError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Version {version} is not served; "
                    f"version {held.model.version} is.",
                )
            held.holders += 1
        try:
            yield held.model
        finally:
            self._release(held)

    def refresh(self) -> None:
        """Switches to the highest version if it differs and loads."""
        path = None
        try:
            path = self._newest()
            if int(path.name) == self.version:
                return
            if self._failed == (path, _state(path)):
                return
            held = _Held(self._load(path))
        except (errors.ServingError, OSError) as error:
            if path is not None:
                self._failed = (path, _state(path))
                logging.error("Version %d stays: %s", self.version, error)
            return
        with self._lock:
            former, self._current = self._current, held
        self._release(former)
        logging.info("Version %d takes over.", held.model.version)

    def _load(self, path: pathlib.Path) -> model_lib.Model:
        model = model_lib.Model(path)
        try:
            self._warm_up(model)
        except BaseException:
            model.close()
            raise
        return model

    def _newest(self) -> pathlib.Path:
        """Returns the folder of the highest version."""
        directory = self._directory
        if not directory.is_dir():
            raise errors.ServingError(f"{directory} is not a folder.")
        found = export_versions.folders(directory)
        models = export_versions.models(directory)
        if found and not models:
            return found[max(found)]  # Loading it raises the error.
        if not models:
            hint = "`monolith-tf export` writes one."
            if export_versions.is_model(directory):
                hint = f"It is a version; serve {directory.absolute().parent}."
            raise errors.ServingError(
                f"{directory} has no versions, folders named by a number. {hint}"
            )
        newest = max(models)
        empty = {folder for number, folder in found.items() if number > newest}
        for folder in sorted(empty - self._passed_over):
            logging.warning(
                "%s is skipped: it has no %s.", folder, export_versions.FILE
            )
        self._passed_over = empty
        return found[newest]

    def _release(self, held: _Held) -> None:
        with self._lock:
            held.holders -= 1
            unused = not held.holders
        if unused:
            held.model.close()


def _state(path: pathlib.Path) -> object:
    """Returns a value that changes when a file in the folder is added or written."""
    found = []
    for file in sorted(path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            found.append((file, stat.st_size, stat.st_mtime_ns))
    return found
