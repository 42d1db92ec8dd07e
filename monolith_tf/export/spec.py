"""Exports of a model for serving, as data."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """Where and when SavedModels are written.

    Attributes:
      directory: Folder that holds one sub-folder per version; None takes
        `<model_dir>/export`.
      every_steps: Steps between exports while training; None exports only when asked
        to by `monolith-tf export`.
      keep_versions: Newest versions to keep, at least 1; older ones are removed.
      verify_rows: Rows of the data on which an export must answer as the model does
        before it is published; 0 publishes unseen.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    directory: str | None = None
    every_steps: int | None = None
    keep_versions: int = 5
    verify_rows: int = 256

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise ValueError(
                "`every_steps` must be at least 1. "
                f"Received: every_steps={self.every_steps}. Leave it out to export "
                "only when asked."
            )
        if self.keep_versions < 1:
            raise ValueError(
                "`keep_versions` must be at least 1. "
                f"Received: keep_versions={self.keep_versions}."
            )
        if self.verify_rows < 0:
            raise ValueError(
                "`verify_rows` must not be negative. "
                f"Received: verify_rows={self.verify_rows}."
            )
