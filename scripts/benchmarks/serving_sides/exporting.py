"""The memory that exports of large tables take, each in its own process."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from serving_sides import case

from monolith_tf import config as config_lib
from monolith_tf import ids as ids_lib
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.experiment import estimator
from monolith_tf.training import checkpoint_dir

HEAD = ("rows", "checkpoint MB", "export MB", "peak MB", "above the smallest", "s")
MILLIONS = (1, 5, 20)
_CHUNK = 200_000


def rows(folder: pathlib.Path) -> Iterator[list[str]]:
    """Yields the lines of the table, starting with the job as trained.

    Args:
      folder: The working folder, which must not exist yet.
    """
    path = case.write(folder, "DCN")
    estimator.Estimator(config_lib.load_config(str(path))).train()
    checkpoint = checkpoint_dir.CheckpointDir(folder / "model/checkpoints").latest()
    tables = pathlib.Path(checkpoint.embedding_dir)
    first = None
    for millions in (0, *MILLIONS):
        number = _grow(tables, 1_000_000 * millions) if millions else _number(tables)
        exported = folder / f"export_{millions}"
        peak, seconds = _export(path, exported)
        first = peak if first is None else first
        yield [
            f"{number:,}",
            f"{_megabytes(tables):.0f}",
            f"{_megabytes(exported):.0f}",
            f"{peak:.0f}",
            f"{peak - first:.0f}",
            f"{seconds:.0f}",
        ]


def _number(tables: pathlib.Path) -> int:
    manifest = checkpoint_files.read_manifest(str(tables))
    return sum(table["counters"]["rows"] for table in manifest["tables"])


def _grow(tables: pathlib.Path, total: int) -> int:
    """Adds items to a checkpoint until its tables have `total` rows."""
    manifest = checkpoint_files.read_manifest(str(tables))
    (group,) = manifest["groups"]
    (item,) = [table for table in manifest["tables"] if table["name"] == "item"]
    writer = checkpoint_files.ArrayWriter(str(tables), f"{total}.rows")
    rng = np.random.default_rng(total)
    state_dim = sum(part["state_dim"] for part in group["slices"])
    start, end = _number(tables), total
    for begin in range(start, end, _CHUNK):
        # No earlier item has such a number.
        values = np.arange(begin, min(begin + _CHUNK, end)) + case.ITEMS
        ids = ids_lib.with_slot(item["slot"], ids_lib.from_integers(values)).numpy()
        writer.save(ids)
        writer.save(rng.normal(size=(len(ids), case.DIM)).astype(np.float32))
        writer.save(np.ones((len(ids), state_dim), np.float32))
        for _ in group["stamps"]:
            writer.save(np.zeros(len(ids), np.int64))
    group["rows_files"].append(writer.close())
    item["counters"]["rows"] += end - start
    checkpoint_files.write_manifest(str(tables), manifest)
    outer = tables.parent / "manifest.json"
    whole = json.loads(outer.read_text())
    for file in tables.iterdir():
        whole["files"][f"{tables.name}/{file.name}"] = file.stat().st_size
    outer.write_text(json.dumps(whole))
    return end


def _export(config: pathlib.Path, directory: pathlib.Path) -> tuple[float, float]:
    """Returns an export's peak memory in MB, and its seconds."""
    command = [
        *(sys.executable, "-m", "monolith_tf", "export", str(config)),
        *("export.verify_rows=0", "export.checkpoint=newest"),
        f"export.directory={directory}",
    ]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} exited with code {process.returncode}.")
    return usage.ru_maxrss * 1024 / 1e6, time.perf_counter() - begin


def _megabytes(folder: pathlib.Path) -> float:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
