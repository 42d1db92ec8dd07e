"""The job of the benchmark `cluster`, for all sides: its data and config."""

import dataclasses
import json
import pathlib

import numpy as np
import pyarrow as pa
from pyarrow import parquet

LEARNING_RATE = 0.05
ACCUMULATOR = 0.1  # Adagrad's initial value.
UNITS = (256, 128)


@dataclasses.dataclass(frozen=True)
class Case:
    """Examples of one id per feature, and a label.

    Attributes:
      batch: Examples of a step.
      features: Features.
      tables: Tables that they share evenly; 0 gives each its own.
      dim: Width of an embedding.
      rows: Ids of all features together, equally many for each; features share none.
        An id of rank `r` is drawn with probability proportional to `1 / r`.
      batches: Number of different batches, used in a cycle.
      loop: Steps that a worker receives at a time.
    """

    batch: int = 4096
    features: int = 26
    tables: int = 0
    dim: int = 16
    rows: int = 4_000_000
    batches: int = 32
    loop: int = 16

    @property
    def names(self) -> list[str]:
        """The features' names."""
        return [f"f{i}" for i in range(self.features)]

    @property
    def ids(self) -> int:
        """Ids of one feature."""
        return self.rows // self.features

    def draw(self) -> np.ndarray:
        """Returns ids below `rows`, `[batches, batch, features]`, int64."""
        rng = np.random.default_rng(0)
        ranks = self.ids ** rng.random((self.batches, self.batch, self.features))
        ids = np.clip(ranks.astype(np.int64) - 1, 0, self.ids - 1)
        # Shuffled, so the order of ids does not depend on their frequency.
        mixed = np.stack([rng.permutation(self.ids) for _ in range(self.features)])
        features = np.arange(self.features)
        return mixed[features, ids] + features * self.ids

    def distinct(self) -> float:
        """Returns the mean number of distinct ids of a batch."""
        return float(np.mean([len(np.unique(batch)) for batch in self.draw()]))

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Writes data and config, and returns the config's path."""
        ids = self.draw().reshape(-1, self.features)
        columns = dict(zip(self.names, np.ascontiguousarray(ids.T), strict=True))
        columns["click"] = ids.sum(axis=1) % 2
        parquet.write_table(
            pa.table(columns),
            folder / "train.parquet",
            row_group_size=self.batch,
            compression="none",
            use_dictionary=False,
        )
        path = folder / "config.yaml"
        path.write_text(json.dumps(self._config(folder)), encoding="utf-8")
        return path

    def _config(self, folder: pathlib.Path) -> dict:
        adagrad = {
            "name": "adagrad",
            "learning_rate": LEARNING_RATE,
            "initial_accumulator_value": ACCUMULATOR,
        }
        rows = adagrad | {"name": "monolith_adagrad"}
        table = {"dim": self.dim, "optimizer": rows}
        tables = self.tables or self.features
        return {
            "model_dir": str(folder / "model"),
            "data": {
                "train": str(folder / "train.parquet"),
                "batch_size": self.batch,
                "shuffle_buffer": 0,
            },
            "features": [
                {"name": name, "kind": "id", "table": f"t{i % tables}"}
                for i, name in enumerate(self.names)
            ],
            "labels": ["click"],
            "tables": [{"name": f"t{i}", **table} for i in range(tables)],
            "model": {
                "blocks": [
                    {
                        "name": "deep",
                        "layer": "MLP",
                        "inputs": "all",
                        "args": {"output_dims": [*UNITS, 1], "use_weight_norm": False},
                    }
                ],
                "heads": [{"label": "click", "inputs": "deep"}],
            },
            "trainer": {
                "optimizer": adagrad,
                "steps_per_loop": self.loop,
                "summaries": False,
            },
            # Variables are partitioned by `MinSizePartitioner`'s defaults.
            "cluster": {"min_part_bytes": 256 << 10, "idle_timeout": 30},
        }
