"""Tests of the records and pages of `scripts/zoo`."""

import importlib
import json
import pathlib
import sys

import pytest

from monolith_tf.testing import small_job

_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "model_zoo"


@pytest.fixture
def zoo(monkeypatch):
    """Imports the runner's modules as they import each other."""
    monkeypatch.syspath_prepend(str(_FOLDER))
    yield importlib.import_module
    for name in ("trials", "results", "pages", "plots", "main"):
        sys.modules.pop(name, None)


def _record(config, seed, auc, **others):
    return {
        "config": config,
        "seed": seed,
        "digest": "0",
        "command": f"monolith-tf train configs/{config}.yaml seed={seed}",
        "test": {"click/auc": auc, "click/log_loss": 0.5, "loss": 0.5},
        "best_step": 100 * seed,
        "steps": 300,
        "curve": [
            {"step": 50, "click/auc": auc - 0.1},
            {"step": 100, "click/auc": auc},
        ],
        "examples_per_sec": 1000 * seed,
        "parameters": 12345,
        "versions": {"python": "3.11.7"},
        "machine": "Abacus, 2 cores",
        **others,
    }


def test_a_record_takes_the_place_of_the_one_before(zoo, tmp_path):
    results = zoo("results")
    for record in (
        _record("d_b", 1, 0.7),
        _record("d_a", 2, 0.6),
        _record("d_a", 1, 0.5),
        _record("d_a", 2, 0.8),
    ):
        results.add(record, "d", tmp_path)
    found = [(r["config"], r["seed"]) for r in results.load("d", tmp_path)]
    assert found == [("d_a", 1), ("d_a", 2), ("d_b", 1)]
    assert results.load("d", tmp_path)[1]["test"]["click/auc"] == 0.8
    assert results.load("other", tmp_path) == []


def test_a_mean_stands_with_its_spread(zoo):
    spread = zoo("results").spread
    assert spread([0.5]) == "0.50000"
    # Deviations -1, 0, 1 of three values: variance 2 / (3 - 1).
    assert spread([1.0, 2.0, 3.0], digits=2) == "2.00 ± 1.00"


def test_the_table_is_made_of_the_records(zoo, tmp_path):
    results = zoo("results")
    for record in (
        _record("d_a", 1, 0.5),
        _record("d_a", 3, 0.7),
        _record("d_b", 1, 0.9),
    ):
        results.add(record, "d", tmp_path)
    (tmp_path / "published.yaml").write_text(
        "d: {metric: test AUC, source: a paper, figures: {d_a: 0.61}}"
    )
    results.write("d", tmp_path)
    page = (tmp_path / "d.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    # The best first; the mean of 0.5 and 0.7 is 0.6, their deviation sqrt(0.02).
    assert rows == [
        "| `d_b` | 1 | 0.90000 | 0.50000 | 0.90000 |  | 1,000 | 12,345 | 100 |",
        "| `d_a` | 1, 3 | 0.60000 ± 0.14142 | 0.50000 ± 0.00000 | 0.50000 0.70000 | "
        "0.61000 | 2,000 | 12,345 | 100, 300 |",
    ]
    assert "Published: test AUC, a paper" in page
    assert "monolith-tf train configs/d_a.yaml seed=3" in page
    assert "- Abacus, 2 cores, python 3.11.7" in page


def test_pages_get_the_results_of_their_config(zoo, tmp_path):
    results = zoo("results")
    for record in (_record("d_a", 1, 0.5), _record("d_a", 2, 0.5)):
        results.add(record, "d", tmp_path)
    page = "# A\n\n<!-- result: {} -->\n{}<!-- end -->\nAnd more.\n"
    (tmp_path / "a.md").write_text(page.format("d_a", "old\n"))
    (tmp_path / "b.md").write_text(page.format("d_b", ""))
    zoo("pages").write(tmp_path, tmp_path)
    lines = (
        "- test click/auc: 0.50000 ± 0.00000\n"
        "- test click/log_loss: 0.50000 ± 0.00000\n"
        "- seeds 1, 2; 12,345 parameters\n"
    )
    assert (tmp_path / "a.md").read_text() == page.format("d_a", lines)
    assert (tmp_path / "b.md").read_text() == page.format("d_b", "Not measured yet.\n")


def test_plots_are_drawn(zoo, tmp_path):
    pytest.importorskip("matplotlib")
    results = zoo("results")
    results.add(_record("d_a", 1, 0.5), "d", tmp_path)
    results.add(_record("d_b", 1, 0.6, curve=[]), "d", tmp_path)
    zoo("plots").write("d", tmp_path)
    for name in ("d_bars.png", "d_curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_only_what_matters_changes_a_digest(zoo, tmp_path):
    trials = zoo("trials")
    path = tmp_path / "d_a.yaml"

    def digest(text, *overrides):
        path.write_text(text)
        return trials.Plan(path, 1, overrides).digest

    first = digest("{model_dir: a, seed: 1, x: 2}")
    assert digest("# Again.\n{x: 2, seed: 5, model_dir: b}") == first
    assert digest("{model_dir: a, seed: 1, x: 3}") != first
    assert digest("{model_dir: a, seed: 1, x: 2}", "x=3") != first


def test_what_failed_is_reported_with_its_reason(zoo, tmp_path, monkeypatch):
    trials = zoo("trials")
    monkeypatch.setattr(trials, "RUNS", tmp_path / "runs")
    (tmp_path / "d_a.yaml").write_text("seed: 1\n")
    with pytest.raises(
        RuntimeError, match=r"(?s)d_a\.yaml seed=1` failed:.*key `data` is"
    ):
        trials.run(trials.Plan(tmp_path / "d_a.yaml", 1), lambda state: None)


def test_a_run_is_trained_scored_and_described(zoo, tmp_path, monkeypatch):
    trials = zoo("trials")
    monkeypatch.setattr(trials, "RUNS", tmp_path / "runs")
    config = small_job.write(tmp_path, rows=256)
    plan = trials.Plan(config, 2, ("trainer.epochs=1", "trainer.eval_every_epochs=1"))
    states = []
    record = trials.run(plan, states.append)
    assert {"train", "evaluate"} <= set(states)
    assert record["seed"] == 2
    assert 0 <= record["test"]["click/auc"] <= 1
    assert [point["step"] for point in record["curve"]] == [4]
    assert record["command"].endswith(
        "config.yaml seed=2 trainer.epochs=1 trainer.eval_every_epochs=1"
    )
    json.dumps(record)
    # The record is written again without training again.
    trials.run(plan, lambda state: pytest.fail("it was trained already"))
