"""Tests of the data that comes with the project, and of the script that makes it."""

import hashlib
import importlib.util
import io
import os
import pathlib
import tarfile

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "census_income"
NUM_ROWS = {"train": 199_523, "test": 99_762}


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "make_census_income.py"
    spec = importlib.util.spec_from_file_location("make_census_income", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("split", ["train", "test"])
def test_files_are_small_whole_and_in_row_groups(split):
    metadata = pq.read_metadata(FOLDER / f"{split}.parquet")
    assert metadata.num_rows == NUM_ROWS[split]
    assert metadata.num_columns == 42
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert max(groups) == 16_384 and len(groups) > 1


def test_all_of_it_takes_less_than_five_megabytes():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 5_000_000


@pytest.mark.parametrize(
    # Rows above 50,000 dollars, and never married, counted in the CSV files.
    ("split", "rich", "never_married"),
    [("train", 12_382, 86_485), ("test", 6_186, 43_143)],
)
def test_labels(split, rich, never_married):
    table = pq.read_table(
        FOLDER / f"{split}.parquet", columns=["income_50k", "marital_stat"]
    )
    assert pc.sum(pc.equal(table["income_50k"], "50000+.")).as_py() == rich
    never = pc.sum(pc.equal(table["marital_stat"], "Never married")).as_py()
    assert never == never_married


def test_readme_has_source_licence_and_checksums():
    text = (FOLDER / "README.md").read_text()
    assert "https://doi.org/10.24432/C5N30T" in text
    assert "https://creativecommons.org/licenses/by/4.0/" in text
    for split in NUM_ROWS:
        content = (FOLDER / f"{split}.parquet").read_bytes()
        assert hashlib.sha256(content).hexdigest() in text
    names = pq.read_schema(FOLDER / "train.parquet").names
    assert all(f"| `{name}` |" in text for name in names)


def test_script_converts_a_small_archive(script, tmp_path):
    def line(age, origin, citizenship, weight):
        cells = {name: "0" if kind == "int" else "x"
                 for name, kind in script.COLUMNS.items()}  # fmt: skip
        cells |= {"age": age, "hisp_origin": origin, "citizenship": citizenship}
        return ", ".join((cells | {"instance_weight": weight}).values()) + "\n"

    content = line("73", "NA", "Foreign born- Not a citizen of U S ", "1700.09")
    content += line("18", "All other", "?", "0")
    archive = tmp_path / "source.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("pkg-1/" + script.MEMBER.format(split="train"))
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content.encode()))
    script.make(archive, tmp_path / "out", {"train": 2})
    table = pq.read_table(tmp_path / "out" / "train.parquet")
    assert table.column_names == list(script.COLUMNS)
    first, second = table.to_pylist()
    assert (first["age"], second["age"]) == (73, 18)
    assert (first["hisp_origin"], second["hisp_origin"]) == (None, "All other")
    # The space after a comma is dropped; the space at the end of a value stays.
    assert first["citizenship"] == "Foreign born- Not a citizen of U S "
    assert (first["instance_weight"], first["race"]) == (1700.09, "x")
    assert "`train.parquet`" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(SystemExit, match="has 2 rows, not 3"):
        script.make(archive, tmp_path / "out", {"train": 3})


def test_equal_to_another_conversion_of_the_same_source():
    other = pathlib.Path(os.environ.get("MONOLITH_TF_TEST_DATA", "")) / "census_income"
    if "MONOLITH_TF_TEST_DATA" not in os.environ or not other.exists():
        pytest.skip("MONOLITH_TF_TEST_DATA names no folder with census_income")
    for split in NUM_ROWS:
        ours = pq.read_table(FOLDER / f"{split}.parquet")
        theirs = pq.read_table(other / f"{split}.parquet")
        assert ours.column_names == theirs.column_names
        for name in ours.column_names:
            expected = theirs[name].cast(ours[name].type).combine_chunks()
            assert ours[name].combine_chunks().equals(expected), name
