"""Tests of tables and columns as data."""

import dataclasses
import re
import subprocess
import sys

import pydantic
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import initializer_spec
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding import spec


def load_table(**fields):
    return pydantic.TypeAdapter(spec.TableSpec).validate_python(fields)


class TableSpecTest(testing.TestCase):
    def test_one_slice_is_described_by_the_table(self):
        table = spec.TableSpec(
            name="user",
            dim=8,
            optimizer=optimizer_spec.SgdSpec(),
            initializer=initializer_spec.ZerosSpec(),
            clip_norm=1.0,
            compressor="int8",
            int8_range=2.0,
        )
        self.assertEqual(
            table.row_slices(),
            (
                spec.SliceSpec(
                    name="vec",
                    dim=8,
                    optimizer=optimizer_spec.SgdSpec(),
                    initializer=initializer_spec.ZerosSpec(),
                    clip_norm=1.0,
                    compressor="int8",
                    int8_range=2.0,
                ),
            ),
        )
        self.assertEqual(table.row_dim, 8)

    def test_ids_are_admitted_at_once_and_rows_not_penalised_by_default(self):
        table = spec.TableSpec(name="t", dim=8)
        self.assertEqual(table.admit_after, 1)
        (part,) = table.row_slices()
        self.assertEqual((part.l2, part.clip_norm), (0, None))

    def test_one_slice_has_the_defaults_of_a_slice(self):
        (part,) = spec.TableSpec(name="user", dim=8).row_slices()
        self.assertEqual(part, spec.SliceSpec(name="vec", dim=8))
        self.assertEqual(part.optimizer, optimizer_spec.MonolithAdagradSpec())
        self.assertEqual(part.initializer, initializer_spec.UniformSpec())
        self.assertEqual(part.compressor, "fp32")
        self.assertIsNone(part.clip_norm)

    def test_slices_come_from_a_config(self):
        table = load_table(
            name="item",
            slices=[
                {"name": "bias", "dim": 1, "optimizer": "ftrl", "initializer": "zeros"},
                {"name": "vec", "dim": 16, "compressor": "fp16"},
            ],
        )
        self.assertEqual([part.name for part in table.row_slices()], ["bias", "vec"])
        self.assertEqual(table.row_dim, 17)

    @parameterized.parameters(
        ({}, r"`dim` or `slices` must be given\. Received: name='t'"),
        ({"dim": 0}, r"`dim` must be at least 1\. Received: dim=0\."),
        (
            {"dim": 4, "clip_norm": 1.0, "slices": [{"name": "a", "dim": 1}]},
            r"`slices` must not be given together .*clip_norm=1\.0, dim=4\. Move it",
        ),
        (
            {"slices": [{"name": "a", "dim": 1}, {"name": "a", "dim": 2}]},
            r"`slices` must differ in name\. Received: names=\['a', 'a'\]",
        ),
        ({"name": "a/b", "dim": 1}, r"`name` must be of letters.*name='a/b'"),
        ({"name": "", "dim": 1}, r"`name` must be of letters.*name=''"),
        ({"dim": 1, "slot": 2**15}, r"`slot` must be in \[0, 32768\).*slot=32768"),
        ({"dim": 1, "slot": -1}, r"`slot` must be in .*slot=-1"),
        ({"dim": 1, "admit_after": 0}, r"`admit_after` must be at least 1.*=0"),
        ({"dim": 1, "expire_after_days": 0}, r"`expire_after_days` must be .*above 0"),
        ({"dim": 1, "expire_after_steps": 0}, "`expire_after_steps` must be at least"),
        ({"dim": 1, "max_rows": 0}, "`max_rows` must be at least 1"),
        ({"dim": 1, "max_bytes": 0}, "`max_bytes` must be at least 1"),
        ({"dim": 1, "clip_norm": 0}, "`clip_norm` must be finite and above 0"),
        ({"dim": 1, "int8_range": -1}, "`int8_range` must be finite and above 0"),
        ({"dim": 1, "l2": -1}, r"`l2` must be finite and not negative.*l2=-1\.0"),
        ({"dim": 1, "l2": float("inf")}, "`l2` must be finite and not negative"),
        ({"dim": 1, "typo": 1}, r"typo\n +Unexpected keyword"),
        ({"slices": [{"name": "a", "dim": 1, "typo": 1}]}, r"slices\.0\.typo\n +Unexp"),
        ({"dim": 1, "when_full": "drop"}, "'error' or 'evict_oldest'"),
    )
    def test_config_names_what_is_wrong(self, fields, message):
        with self.assertRaisesRegex(pydantic.ValidationError, message):
            load_table(**{"name": "t", **fields})

    @parameterized.parameters(
        (
            {"unknown": "skip"},
            r"`unknown` must be one of \['insert', 'zeros'\].*'skip'",
        ),
        ({"update_rows": "none"}, r"`update_rows` must be one of \['batch', 'all'\]"),
        ({"admission": "bloom"}, r"`admission` must be one of \['exact', 'sketch', "),
        ({"when_full": "drop"}, r"`when_full` must be one of \['error', 'evict_old"),
        ({"compressor": "int4"}, r"`compressor` must be one of \['fp32', 'fp16', "),
    )
    def test_python_names_the_choices(self, fields, message):
        with self.assertRaisesRegex(ValueError, message):
            spec.TableSpec(name="t", dim=1, **fields)

    @parameterized.parameters(
        ("optimizer", "sgd", r"`SgdSpec\(\)`\. .*'sgd'.*row_optimizer\('sgd'\)"),
        ("initializer", "zeros", r"`ZerosSpec\(\)`\. .*initializer\('zeros'\)"),
        ("initializer", 0.1, r"initializer=0\.1\. .*initializer\(name, \.\.\.\)`"),
    )
    def test_python_says_how_to_name_a_spec(self, argument, value, message):
        with self.assertRaisesRegex(TypeError, message):
            spec.TableSpec(name="t", dim=1, **{argument: value})

    @parameterized.parameters(
        ("initializer", {"name": "constant", "value": 1.0}),
        ("optimizer", {"learning_rate": 0.5, "name": "sgd"}),
    )
    def test_what_the_error_of_a_mapping_advises_works(self, argument, value):
        with self.assertRaises(TypeError) as caught:
            spec.TableSpec(name="t", dim=1, **{argument: value})
        (advice,) = re.findall(r"call `(.*)`\.$", str(caught.exception))
        modules = {
            "initializer_spec": initializer_spec,
            "optimizer_spec": optimizer_spec,
        }
        made = eval(advice, modules)
        self.assertEqual(dataclasses.asdict(made) | value, dataclasses.asdict(made))
        spec.TableSpec(name="t", dim=1, **{argument: made})

    def test_specs_are_hashable_and_survive_a_round_trip(self):
        adapter = pydantic.TypeAdapter(spec.TableSpec)
        for table in (
            spec.TableSpec(
                name="a", dim=4, optimizer=optimizer_spec.LionSpec(), slot=3
            ),
            spec.TableSpec(
                name="b",
                slices=(
                    spec.SliceSpec(name="x", dim=1),
                    spec.SliceSpec(name="y", dim=2),
                ),
            ),
        ):
            self.assertEqual(adapter.validate_json(adapter.dump_json(table)), table)
            self.assertLen({table, dataclasses.replace(table)}, 1)

    def test_specs_do_not_load_tensorflow(self):
        code = (
            "import sys, monolith_tf.embedding.spec as spec\n"
            "spec.TableSpec(name='t', dim=1)\n"
            "sys.exit('tensorflow' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class ColumnSpecTest(testing.TestCase):
    def test_defaults(self):
        column = spec.ColumnSpec(feature="clicks", table="item")
        self.assertEqual(column.combiner, "sum")
        self.assertIsNone(column.max_length)

    @parameterized.parameters(
        ({"combiner": "first_n"}, r"`max_length` must be given with .*feature='f'"),
        ({"combiner": "first_n", "max_length": 0}, r"`max_length` must be at least 1"),
        ({"combiner": "avg"}, r"`combiner` must be one of \['sum', 'mean', .*'avg'"),
        ({"feature": ""}, r"`feature` must not be empty"),
        ({"table": ""}, r"`table` must not be empty"),
    )
    def test_rejects(self, fields, message):
        with self.assertRaisesRegex(ValueError, message):
            spec.ColumnSpec(**{"feature": "f", "table": "t", **fields})
