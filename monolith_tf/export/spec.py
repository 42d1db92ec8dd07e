"""Exports of a model for serving, as data."""

import dataclasses
from typing import Literal

from monolith_tf import paths


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """Where and when SavedModels are written, and their signatures.

    Attributes:
      directory: Folder with one sub-folder per version; None takes
        `<model_dir>/export`.
      every_steps: Steps between exports during training; None exports only with
        `monolith-tf export`.
      checkpoint: The checkpoint that `monolith-tf export` takes: the `best`, or the
        newest if no best one was kept; or the `newest`.
      keep_versions: Newest versions to keep, at least 1; older ones are removed.
      verify_rows: Rows of the data on which an export must match the model before it
        is published; 0 publishes without a check.
      warmup_rows: How many of those rows each warm-up request has, at most 16, so that
        a server with batching accepts it; 0 writes no requests.
      list_inputs: The form of list inputs, in addition to `<name>_length`: `padded`,
        `[batch, length]`; or `values`, all rows' values concatenated, `[total]`.
      output_signatures: Heads and extra outputs that get their own signature.
      classify: Heads that get a classification signature, `classify_<head>`.
      regress: Heads that get a regression signature, `regress_<head>`.
      user_features: Features of the user, sent once in the signature `candidates` for
        any number of items; without any there is no such signature.
      spare_rows: Rows of each group of tables reserved for ids that the signature
        `update_embeddings` adds later; 0 omits the signature. Anyone who can reach a
        server with it can change the model's answers.
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
                f"Received: every_steps={self.every_steps}. Omit it to export only "
                "with `monolith-tf export`."
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
