"""Tests of the row optimizers of resumed jobs."""

import json
import logging
import pathlib
import textwrap

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.experiment import resumed_optimizers
from monolith_tf.training.checkpoint import Checkpoint

_OLD = """
    default_table:
      dim: 2
      optimizer: {name: adam, learning_rate: 0.01, weight_decay: 0.0, beta_1: 0.9,
        beta_2: 0.99, epsilon: 0.01}
    tables:
      - name: item
        slices:
          - name: vec
            dim: 2
            optimizer: {name: rmsprop, learning_rate: 0.5, weight_decay: 0.0,
              rho: 0.9, epsilon: 1.0}
          - {name: bias, dim: 1}
      - {name: plain, dim: 2}
"""


def _load(name, **numbers):
    return optimizer_spec.row_optimizer(name, **numbers)


class ResumedTest(testing.TestCase):
    def _resumed(self, *tables, yaml=_OLD, entries=None):
        folder = pathlib.Path(self.get_temp_dir())
        (folder / "config.yaml").write_text(textwrap.dedent(yaml))
        names = [{"name": table.name} for table in tables]
        manifest = {"embedding": {"tables": entries or names}}
        checkpoint = Checkpoint(folder, manifest)
        found = resumed_optimizers.resumed(tables, checkpoint)
        json.dumps(found)
        return [
            [part.optimizer for part in given.row_slices()]
            for given in (
                resumed_optimizers.given_to(table, found[table.name])
                for table in tables
            )
        ]

    def test_a_name_alone_goes_on_in_the_form_of_0_1_0_and_says_so(self):
        table = TableSpec(name="user", dim=2, optimizer=_load("adam"))
        with self.assertLogs("absl", level=logging.INFO) as logs:
            found = self._resumed(table)
        self.assertEqual(found, [[optimizer_spec.MonolithAdamSpec()]])
        self.assertRegex(
            logs.output[0],
            "Table `user`, slice `vec`: the optimizer continues with the checkpoint's "
            r"values, \{name: monolith_adam, learning_rate: 0.01, beta_2: 0.99, "
            r"epsilon: 0.01\}, .* config's `adam`\. Set values in the config to change",
        )

    def test_what_is_written_out_counts(self):
        table = TableSpec(
            name="user", dim=2, optimizer=_load("adam", beta_2=0.999, epsilon=1e-7)
        )
        self.assertEqual(
            self._resumed(table),
            [[optimizer_spec.MonolithAdamSpec(beta_2=0.999, epsilon=1e-7)]],
        )

    def test_slices_and_tables_without_an_optimizer(self):
        item = TableSpec(
            name="item",
            slices=(
                SliceSpec(name="vec", dim=2, optimizer=_load("rmsprop", rho=0.5)),
                SliceSpec(name="bias", dim=1),
            ),
        )
        self.assertEqual(
            self._resumed(item, TableSpec(name="plain", dim=2)),
            [
                [
                    optimizer_spec.MonolithRmspropSpec(learning_rate=0.5, rho=0.5),
                    optimizer_spec.MonolithAdagradSpec(),
                ],
                [optimizer_spec.MonolithAdagradSpec()],
            ],
        )

    def test_another_optimizer_and_a_new_table_are_the_configs(self):
        tables = [
            TableSpec(name="user", dim=2, optimizer=_load("sgd")),
            TableSpec(name="new", dim=2, optimizer=_load("adam")),
        ]
        entries = [{"name": "user"}]
        self.assertEqual(
            self._resumed(*tables, entries=entries),
            [[optimizer_spec.SgdSpec()], [optimizer_spec.AdamSpec()]],
        )

    def test_a_later_checkpoint_says_it_itself(self):
        schedule = {"name": "cosine", "learning_rate": 0.5, "decay_steps": 7}
        saved = _load("adam", learning_rate=schedule, epsilon=0.5)
        before = TableSpec(name="user", dim=2, optimizer=saved)
        entry = {
            "name": "user",
            "optimizers": resumed_optimizers.of_tables([before])["user"],
        }
        table = TableSpec(name="user", dim=2, optimizer=_load("adam", beta_1=0.5))
        self.assertEqual(
            self._resumed(table, entries=[entry]),
            [[_load("adam", learning_rate=schedule, epsilon=0.5, beta_1=0.5)]],
        )
        other = TableSpec(name="user", dim=2, optimizer=_load("monolith_adam"))
        self.assertEqual(
            self._resumed(other, entries=[entry]), [[optimizer_spec.MonolithAdamSpec()]]
        )
