"""The exported jobs: their data, and requests to their models."""

import pathlib

import numpy as np
import pyarrow as pa
from pyarrow import parquet

USERS = 20_000
ITEMS = 50_000
CONTEXTS = 1_000
NUM_CONTEXTS = 6
HISTORY = 50
DIM = 16

_ROWS = 20_000
_FEATURES = [
    "{{name: history, kind: id_list, table: item, max_length: 50, combiner: {pool}}}",
    "{name: user, kind: id}",
    "{name: item, kind: id}",
    "{name: price, kind: dense, transform: log1p}",
]
_DCN = """\
model:
  name: dcn
  params: {label: click, num_cross_layers: 3, hidden_units: [256, 128]}
"""
# A step padded with a zero row adds zero to the sum, whatever its score.
_DIN = """\
model:
  blocks:
    - name: interest
      layer: DIN
      inputs: [item, history]
      join: list
      args: {hidden_units: [64, 1], activation: relu}
    - name: deep
      layer: MLP
      inputs: [user, item, interest, CONTEXTS, price]
      args: {output_dims: [256, 128, 1], activations: [relu, relu, null]}
  heads:
    - {label: click, inputs: deep}
"""
MODELS = {"DCN": (_DCN, "mean"), "DIN": (_DIN, "first_n")}


def write(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Writes data and the config of a job, and returns the config's path."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    columns = {
        name: value if value.ndim == 1 else list(value)
        for name, value in requests(rng, _ROWS).items()
        if name != "history_length"
    }
    columns["click"] = rng.integers(0, 2, _ROWS)
    parquet.write_table(pa.table(columns), folder / "train.parquet")
    model, pool = MODELS[name]
    contexts = [f"context_{i}" for i in range(NUM_CONTEXTS)]
    features = [
        *(f.format(pool=pool) if "pool" in f else f for f in _FEATURES),
        *(f"{{name: {context}, kind: id}}" for context in contexts),
    ]
    path = folder / "config.yaml"
    path.write_text(
        f"model_dir: {folder}/model\n"
        f"data: {{train: {folder}/train.parquet, batch_size: 2048}}\n"
        f"default_table: {{dim: {DIM}}}\n"
        "labels: [click]\n"
        "features:\n"
        + "".join(f"  - {feature}\n" for feature in features)
        + model.replace("CONTEXTS", ", ".join(contexts))
        + "trainer: {summaries: false}\n"
    )
    return path


def requests(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Returns the inputs of `rows` rows for `serving_default`."""
    contexts = {
        f"context_{i}": rng.integers(0, CONTEXTS, rows) for i in range(NUM_CONTEXTS)
    }
    return {
        "user": rng.integers(0, USERS, rows),
        "item": rng.integers(0, ITEMS, rows),
        "history": rng.integers(0, ITEMS, (rows, HISTORY)),
        "history_length": np.full(rows, HISTORY),
        "price": rng.lognormal(size=rows).astype(np.float32),
        **contexts,
    }
