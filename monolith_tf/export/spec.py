"""Exports of a model for serving, as data."""

import dataclasses
from typing import Literal

from monolith_tf import paths


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """Where and when SavedModels are written, and what they answer.

    Attributes:
      directory: Folder that holds one sub-folder per version; None takes
        `<model_dir>/export`.
      every_steps: Steps between exports while training; None exports only when asked
        to by `monolith-tf export`.
      checkpoint: What is exported when asked for: the `best` checkpoint, or the newest
        where no best one was kept; or the `newest`.
      keep_versions: Newest versions to keep, at least 1; older ones are removed.
      verify_rows: Rows of the data on which an export must answer as the model does
        before it is published; 0 publishes unseen.
      warmup_rows: How many of those rows are put into the requests that a server
        answers before it takes others, at most 16, so that a server that batches takes
        them; 0 leaves the requests out.
      list_inputs: How a list is given by name, beside `<name>_length`: `padded`,
        `[batch, length]`; or `values`, all rows' values one after the other, `[total]`.
      output_signatures: Heads and extra outputs that get a signature of their own.
      classify: Heads that get a classification signature, `classify_<head>`.
      regress: Heads that get a regression signature, `regress_<head>`.
      user_features: Features of the user, given once in the signature `candidates` for
        any number of items; none leaves the signature out.
      spare_rows: Rows of each group of tables that are kept free for ids that come
        later by the signature `update_embeddings`; 0 leaves the signature out. Who
        reaches a server with it can change what the model answers.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    directory: str | None = None
    every_steps: int | None = None
    checkpoint: Literal["best", "newest"] = "best"
    keep_versions: int = 5
    verify_rows: int = 256
    warmup_rows: int = 16
    list_inputs: Literal["padded", "values"] = "padded"
    output_signatures: tuple[str, ...] = ()
    classify: tuple[str, ...] = ()
    regress: tuple[str, ...] = ()
    user_features: tuple[str, ...] = ()
    spare_rows: int = 0

    def __post_init__(self) -> None:
        if self.directory is not None:
            paths.check("directory", self.directory)
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
        for name in ("verify_rows", "warmup_rows", "spare_rows"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"`{name}` must not be negative. "
                    f"Received: {name}={getattr(self, name)}."
                )
