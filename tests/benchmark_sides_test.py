"""Tests of what the benchmarks share: sides in processes, and pages of results."""

import json
import pathlib
import sys

import numpy as np
import pytest

_BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "benchmarks"

_SIDE = """\
class Side:
    def __init__(self, name):
        self.name, self.asked = name, 0
        print("not an answer")

    def time(self, step):
        self.asked += step
        return self.asked, len(self.name)

    def fail(self):
        raise ValueError("no such case")

    def die(self):
        raise SystemExit("out of memory")
"""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(_BENCHMARKS)
    from sides import process
    from sides import report

    (tmp_path / "docs").mkdir()
    (tmp_path / "some_side.py").write_text(_SIDE)
    (tmp_path / "sides").symlink_to(_BENCHMARKS / "sides")
    monkeypatch.setattr(process, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["x/some.py", "--write"])


def _start(name):
    from sides import process

    return process.Process(process.Library("some"), "some_side", name)


def test_sides_take_turns_once_to_warm_up():
    from sides import process

    with _start("a") as one, _start("bcd") as two:
        found = process.in_turn({"one": one, "two": two}, 2, step=3)
    np.testing.assert_array_equal(found["one"], [[6, 1], [9, 1]])
    np.testing.assert_array_equal(found["two"], [[6, 3], [9, 3]])


def test_a_side_tells_its_errors_and_goes_on():
    with _start("a") as side:
        with pytest.raises(RuntimeError, match="ValueError: no such case"):
            side.ask("fail")
        assert side.ask("time", step=2) == [2, 1]
        with pytest.raises(
            RuntimeError, match=r"(?s)exited with code 1:.*out of memory"
        ):
            side.ask("die")
        with pytest.raises(
            RuntimeError, match=r"(?s)exited with code 1:.*out of memory"
        ):
            side.ask("fail")


def test_seconds_and_memory_are_measured():
    from sides import worker

    made = []
    clock, cpu = worker.seconds(lambda: made.append(sum(range(10**5))), calls=3)
    assert len(made) == 3
    assert clock > 0.0
    assert 0.0 <= cpu < 10.0
    peak = worker.peak_mib(lambda: np.ones([32, 2**20], np.uint8))
    assert peak is None or 30.0 < peak < 64.0


def test_a_page_keeps_what_people_wrote(tmp_path):
    from sides import report

    page = tmp_path / "docs" / "page.md"
    page.write_text("# Page\n\n<!-- a: -->\n<!-- /a -->\n\nBy hand.\n")
    report.write("page.md", "a", report.table(["side", "ms"], [["ours", "1.0"]]))
    report.write("page.md", "b", "other")
    begin = "written by `scripts/bench some --write` -->\n\n"
    first = f"# Page\n\n<!-- a: {begin}| side | ms |\n| --- | ---: |\n| ours | 1.0 |"
    assert page.read_text() == (
        f"{first}\n\n<!-- /a -->\n\nBy hand.\n\n<!-- b: {begin}other\n\n<!-- /b -->\n"
    )
    report.write("page.md", "a", "again")
    assert "ours" not in page.read_text()
    assert page.read_text().startswith(f"# Page\n\n<!-- a: {begin}again\n\n<!-- /a -->")


def test_the_machine_is_named():
    from sides import report

    line = report.machine("numpy")
    assert " cores, Python 3." in line
    assert f"numpy {np.__version__}" in line


def test_tables_are_written_as_json_too(benchmarks, tmp_path, monkeypatch):
    from sides import report

    monkeypatch.setattr(report, "_TABLES", [])
    monkeypatch.setattr(sys, "argv", ["embedding.py", "--rounds", "3"])
    report.table(["side", "ms"], [["ours", "1.0"]])
    report.write_json(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["command"] == "scripts/bench embedding --rounds 3"
    assert found["tables"] == [{"head": ["side", "ms"], "rows": [["ours", "1.0"]]}]
    before = sorted(tmp_path.iterdir())
    report.write_json(None)
    assert sorted(tmp_path.iterdir()) == before


def test_rows_of_the_accuracy_benchmark_are_padded_batch_by_batch(tmp_path):
    from accuracy_sides import case

    np.savez(
        tmp_path / "rows.npz",
        **{"past": [4, 5, 6, 7], "past/lengths": [1, 0, 2, 1]},
        item=[1, 2, 3, 4],
        label=np.float32([1, 0, 1, 0]),
    )
    first, second = case.Rows(tmp_path / "rows.npz").batches(3, ["label"])
    assert sorted(first) == ["item", "label", "past"]
    np.testing.assert_array_equal(first["past"], [[4, 0], [0, 0], [5, 6]])
    np.testing.assert_array_equal(first["item"], [1, 2, 3])
    np.testing.assert_array_equal(second["past"], [[7]])
    np.testing.assert_array_equal(second["label"], [0])


def test_a_run_of_a_seed_replaces_the_earlier_one_in_the_accuracy_table(
    tmp_path, monkeypatch
):
    import accuracy

    monkeypatch.setattr(accuracy, "RECORDS", tmp_path / "peers.json")
    shared = {"name": "census_mmoe", "curve": [{}, {}], "l2": 0.0, "parameters": 1234}
    shared["versions"] = {"torch": "2.13.0"}
    for seed, auc in ((2, 0.5), (1, 0.9), (2, 0.7)):
        test = {"income/log_loss": 0.25, "income/auc": auc}
        records = accuracy.add({"seed": seed, "epoch": 1, "test": test, **shared})
    assert accuracy.table(records).splitlines()[2:] == [
        "| seed | income/auc | income/log_loss | after epoch |",
        "| --- | ---: | ---: | ---: |",
        "| 1 | 0.90000 | 0.25000 | 1 |",
        "| 2 | 0.70000 | 0.25000 | 1 |",
        "| mean and deviation | 0.80000 ± 0.14142 | 0.25000 ± 0.00000 |  |",
    ]
