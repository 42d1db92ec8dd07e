"""Clusters of real processes, against one process, and with some of them killed."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from pyarrow import parquet

from monolith_tf.distribute import exits
from monolith_tf.distribute import roster
from monolith_tf.testing import small_job
from monolith_tf.testing.cluster_processes import ClusterProcesses

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


@pytest.fixture(name="config", scope="module")
def _config(tmp_path_factory):
    return small_job.write(tmp_path_factory.mktemp("job"))


@pytest.fixture(name="alone", scope="module")
def _alone(config, tmp_path_factory):
    """The model_dir of a run in one process."""
    model_dir = tmp_path_factory.mktemp("alone")
    _train_alone(config, model_dir)
    return model_dir


def _train_alone(config, model_dir):
    command = [sys.executable, "-m", "monolith_tf", "train", str(config)]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    subprocess.run(
        [*command, f"model_dir={model_dir}"],
        env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        timeout=240,
        capture_output=True,
    )


def _train(config, model_dir, *overrides, ps, workers=1):
    with ClusterProcesses(
        config, model_dir, *overrides, ps=ps, workers=workers
    ) as cluster:
        cluster.start()
        codes = cluster.wait_all()
        assert not any(codes.values()), (codes, cluster.log("chief"))


def _records(model_dir, *, phase):
    path = model_dir / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in found if record["phase"] == phase]


def _assert_equal(model_dir, alone):
    """Compares two runs: rows and variables bit for bit, and evaluations."""
    left, right = small_job.last(model_dir), small_job.last(alone)
    assert left.manifest["state"]["progress"] == right.manifest["state"]["progress"]
    assert _records(model_dir, phase="eval") == _records(alone, phase="eval")
    _assert_trained_equally(left, right)


def _assert_trained_equally(left, right):
    """Compares rows and variables of two checkpoints, bit for bit."""
    assert left.step == right.step
    expected, found = small_job.dense(right), small_job.dense(left)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert small_job.rows(left.embedding_dir) == small_job.rows(right.embedding_dir)


_DAMAGING = """
import importlib
import os
import pathlib

dcn = importlib.import_module("monolith_tf.models.dcn")


class Damaging(dcn.DCN):
    \"\"\"Flips a bit of a file, once: after its checkpoint was found whole.\"\"\"

    Params = dcn.DCNParams

    def __init__(self, params):
        super().__init__(params)
        path = pathlib.Path(os.environ["DAMAGED"])
        data = bytearray(path.read_bytes())
        if not path.with_suffix(".before").exists():
            path.with_suffix(".before").write_bytes(data)
            data[-5] ^= 1
            path.write_bytes(data)
"""


@pytest.mark.slow
def test_rows_damaged_while_they_are_read_lead_to_the_checkpoint_before(
    config, alone, tmp_path, monkeypatch
):
    folder, model_dir = tmp_path / "config", tmp_path / "model"
    folder.mkdir()
    (folder / "damaging.py").write_text(_DAMAGING)
    text = config.read_text().replace("name: dcn", "class: damaging:Damaging")
    (folder / "config.yaml").write_text(text)
    shutil.copytree(alone, model_dir)
    newest = small_job.last(model_dir)
    rows = max(newest.path.rglob("*.rows"), key=lambda path: path.stat().st_size)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("DAMAGED", str(rows))
    with ClusterProcesses(folder / "config.yaml", model_dir, ps=2) as cluster:
        cluster.start()
        codes = cluster.wait_all()
        log = cluster.log("chief")
        assert not any(codes.values()), (codes, log)
    assert "Skipping a checkpoint while reading it: " in log
    assert f"{rows.name} differs from its checksum" in log
    before = (d for d in sorted(newest.path.parent.iterdir()) if d != newest.path)
    assert f"Resuming from {[*before][-1]}." in log
    _assert_equal(model_dir, alone)


def test_one_worker_and_one_server_equal_one_process_with_an_evaluator_beside(
    config, alone, tmp_path
):
    beside = ("cluster.evaluator=true", "trainer.keep_best=click/auc")
    with ClusterProcesses(config, tmp_path, *beside, ps=1) as cluster:
        cluster.start("evaluator-0")
        cluster.start()
        codes = cluster.wait_all()
        assert not any(codes.values()), (codes, cluster.log("evaluator-0"))
    _assert_trained_equally(small_job.last(tmp_path), small_job.last(alone))
    lines, expected = (_records(d, phase="train") for d in (tmp_path, alone))
    for line in [*lines, *expected]:
        del line["examples_per_sec"]
    assert lines == expected
    assert not _records(tmp_path, phase="eval")
    scored = {r["step"]: r for r in _records(tmp_path / "evaluator", phase="eval")}
    expected = {r["step"]: r for r in _records(alone, phase="eval")}
    assert scored[64] == expected[64]
    best = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert best["value"] == max(r["click/auc"] for r in scored.values())


_slow = pytest.mark.slow


@pytest.mark.parametrize(
    "ps", [2, *(pytest.param(ps, marks=_slow) for ps in (1, 5, None))]
)
def test_a_checkpoint_of_three_servers_goes_on_with(config, alone, tmp_path, ps):
    # Small enough for blocks of the dense variables on all three servers.
    cut = "cluster.min_part_bytes=32"
    _train(config, tmp_path, cut, "trainer.epochs=1", ps=3)
    assert small_job.last(tmp_path).step == 32
    if ps is None:
        _train_alone(config, tmp_path)
    else:
        _train(config, tmp_path, cut, ps=ps)
    _assert_equal(tmp_path, alone)


_UNIQUE = """\
model_dir: {folder}/model
data: {{format: parquet, train: {folder}/rows.parquet, eval: {folder}/eval.parquet,
        batch_size: 16, shuffle_buffer: 200}}
features: [{{name: number, kind: id}}, {{name: price, kind: dense, default: 1}}]
labels: [click]
default_table: {{dim: 2}}
model: {{name: dcn, params: {{label: click, num_cross_layers: 1, hidden_units: [4]}}}}
trainer: {{epochs: 1, steps_per_loop: 5, log_every_steps: 7}}
metrics: [auc]
"""


def _write_unique(folder, rows):
    """A job in which every row has its own id."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "number": range(rows),
        "price": [None if i % 7 == 0 else i for i in range(rows)],
        "click": [i % 2 for i in range(rows)],
    }
    table = pa.table(columns)
    parquet.write_table(table, folder / "rows.parquet", row_group_size=150)
    parquet.write_table(table.slice(0, 100), folder / "eval.parquet")
    (folder / "unique.yaml").write_text(_UNIQUE.format(folder=folder))
    return folder / "unique.yaml"


def test_every_example_goes_to_exactly_one_worker(tmp_path):
    rows = 2003
    config = _write_unique(tmp_path, rows)
    model_dir = tmp_path / "model"
    _train(config, model_dir, "trainer.eval_every_epochs=1", ps=1, workers=2)
    workers = [roster.read(model_dir, f"worker-{index}") for index in range(2)]
    given = [worker["examples"] for worker in workers]
    # No row was missed, since its id has a row in the table; none was read twice.
    assert len(small_job.rows(small_job.last(model_dir).embedding_dir)) == rows
    assert sum(given) == rows + 100
    assert min(given) > 0
    counts = _records(model_dir, phase="data")[-1]
    found = {split: counts[f"{split}/defaults/price"] for split in ("train", "eval")}
    assert found == {"train": -(-rows // 7), "eval": -(-100 // 7)}
    progress = small_job.last(model_dir).manifest["state"]["progress"]
    assert progress["step"] == progress["batch"] == -(-rows // 16)


@_slow
def test_a_worker_dies_for_good_and_the_job_ends(config, tmp_path):
    many = ("trainer.epochs=5", "trainer.deterministic=false")
    with ClusterProcesses(config, tmp_path, *many, workers=2) as cluster:
        cluster.start()
        cluster.wait_until(lambda: _steps(tmp_path) >= 20)
        cluster.kill("worker-0")
        assert cluster.wait("chief") == exits.DONE, cluster.log("chief")
        assert cluster.wait("ps-0") == cluster.wait("worker-1") == exits.DONE
    assert small_job.last(tmp_path).step == 5 * 32


def test_a_server_dies_and_the_job_starts_again(config, tmp_path):
    many = ("trainer.epochs=4", "trainer.eval_every_epochs=null")
    with ClusterProcesses(config, tmp_path, *many) as cluster:
        cluster.start()
        cluster.wait_until(lambda: _steps(tmp_path) >= 20)
        cluster.kill("ps-0")
        assert cluster.wait("chief") == exits.PS_LOST, cluster.log("chief")
        step = small_job.last(tmp_path).step
        said = cluster.log("chief")
        assert "A parameter server was lost: ps-0 at 127.0.0.1:" in said
        assert f"it resumes from step {step}" in said
        # The remaining worker serves the next chief, after it has restarted itself.
        cluster.start("ps-0", "chief")
        assert cluster.wait("chief") == exits.DONE, cluster.log("chief")
        assert cluster.wait("worker-0") == exits.DONE
        assert "A new chief has taken over" in cluster.log("worker-0")
    assert f"Resuming from {small_job.last(tmp_path).path.parent}/ckpt-{step:08d}" in (
        cluster.log("chief")
    )
    assert small_job.last(tmp_path).step == 4 * 32


@_slow
def test_tasks_end_where_their_chief_is_gone(config, tmp_path):
    with ClusterProcesses(config, tmp_path, "cluster.idle_timeout=12") as cluster:
        cluster.start()
        cluster.wait_until(lambda: _steps(tmp_path) >= 10)
        cluster.kill("chief")
        assert cluster.wait("ps-0") == cluster.wait("worker-0") == exits.CHIEF_GONE
        address = cluster.tasks["chief"].address
    assert (
        f"error: ps-0: the chief at {address} has been gone for 12 s, "
        "`cluster.idle_timeout`; ending."
    ) in cluster.log("ps-0")


def test_a_missing_task_is_named(config, tmp_path):
    short = "cluster.join_timeout=8"
    with ClusterProcesses(config, tmp_path, short) as cluster:
        cluster.start("ps-0")
        cluster.wait_until(lambda: roster.read(tmp_path, "ps-0"))
        cluster.start("chief")
        assert cluster.wait("chief") == exits.FAILED
        address = cluster.tasks["worker-0"].address
    assert (
        f"error: worker-0 at {address} did not sign in under {tmp_path}/cluster within "
        "8 s"
    ) in cluster.log("chief")


def test_a_worker_that_cannot_read_its_data_is_named(tmp_path):
    config = small_job.write(tmp_path)
    # The chief itself reads the train split's statistics, and counts the rows of both.
    path = tmp_path / "eval.parquet"
    column = parquet.read_metadata(path).row_group(0).column(0)
    with path.open("r+b") as file:
        file.seek(column.dictionary_page_offset)
        file.write(bytes(column.total_compressed_size))
    with ClusterProcesses(config, tmp_path) as cluster:
        cluster.start()
        assert cluster.wait("chief") == exits.FAILED
        address = cluster.tasks["worker-0"].address
    said = cluster.log("chief")
    assert f"error: worker-0 at {address} cannot read its data: " in said
    assert str(path) in said


def _steps(model_dir):
    entry = roster.read(model_dir, "chief")
    return 0 if entry is None else entry.get("step", 0)


_ONCE = ("trainer.epochs=1", "trainer.eval_every_epochs=null")


def _changed(folder, **cells):
    """A job with other values in some cells: column -> row -> value."""
    config = small_job.write(folder, rows=256)
    table = parquet.read_table(folder / "train.parquet")
    for name, values in cells.items():
        column = table[name].to_numpy().copy()
        column[list(values)] = list(values.values())
        table = table.set_column(table.column_names.index(name), name, [column])
    parquet.write_table(table, folder / "train.parquet")
    return config


def _stopped(config, *, ps):
    """What the chief of a cluster says that cannot train."""
    model_dir = config.parent / "stops"
    with ClusterProcesses(config, model_dir, *_ONCE, ps=ps) as cluster:
        cluster.start()
        assert cluster.wait("chief") == exits.FAILED
        return " ".join(cluster.log("chief").split())


def test_a_large_integer_stops_a_cluster(tmp_path):
    log = _stopped(_changed(tmp_path, item={100: -(2**63)}), ps=2)
    assert "train.parquet: row 100 (counting from 0): feature `item` has the" in log
    assert "Set `large_integers: exact` for the table" in log


def test_bad_labels_stop_a_cluster(tmp_path):
    log = _stopped(_changed(tmp_path, click={100: 5, 200: 5}), ps=1)
    assert (
        "train.parquet: row 100 (counting from 0): column `click`: the label 5" in log
    )


def test_bad_labels_are_left_out_and_large_integers_taken_by_a_cluster(tmp_path):
    config = _changed(
        tmp_path,
        click={100: 5, 200: 5},
        price={7: 1e6, 100: 1e6, 150: 1e6},  # One of them in a row that is skipped.
        item={50: -(2**63)},
    )
    options = (
        "data.on_bad_row=skip",
        "features[5].transform=[{name: clip, max: 1000}]",
        "tables[1].large_integers=exact",
    )
    model_dir = tmp_path / "model"
    _train(config, model_dir, *_ONCE, *options, ps=2, workers=2)
    (trained,) = _records(model_dir, phase="train")[-1:]
    (counted,) = _records(model_dir, phase="data")[-1:]
    assert trained["examples"] == 254
    assert counted["train/bad_rows"] == 2
    assert counted["train/clipped/price"] == 2
    assert -(2**63) in small_job.rows(small_job.last(model_dir).embedding_dir)
