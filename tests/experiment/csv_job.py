"""A job on a CSV file of a few rows."""

import csv
import gc
import pathlib
from typing import ClassVar

from monolith_tf import testing


class CsvJobTest(testing.TestCase):
    """Writes a config and its rows into a folder of each test's own.

    Attributes:
      CONFIG: The config, with `{folder}` in place of the folder.
      HEADER: Names of the columns of `rows.csv`.
      ROWS: Its rows.
      folder: Where both are.
      config: Path of the config.
    """

    CONFIG: ClassVar[str]
    HEADER: ClassVar[tuple[str, ...]] = ("user", "item", "click")
    ROWS: ClassVar[list] = [(n % 30, n % 7, n % 2) for n in range(60)]

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.get_temp_dir()) / self._testMethodName
        self.folder.mkdir()
        self.config = self.folder / "config.yaml"
        self.config.write_text(self.CONFIG.format(folder=self.folder))
        with (self.folder / "rows.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.HEADER)
            writer.writerows(self.ROWS)

    def tearDown(self):
        super().tearDown()
        gc.collect()
