import threading
from unittest import mock

import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.layers import functional
from monolith_tf.layers.functional import compressed_interaction
from monolith_tf.layers.functional import forms
from monolith_tf.layers.functional import fused_cin
from monolith_tf.layers.functional import fused_senet


def _selected(fused, wins=False):
    return forms.select(fused, plain="plain", compiled="fused", wins=lambda: wins)


class FormsTest(testing.TestCase):
    @parameterized.parameters(
        (False, True, "plain"),
        (True, False, "fused"),
        ("auto", False, "plain"),
        ("auto", True, "fused"),
    )
    def test_selects_by_wish_or_by_gain(self, fused, wins, form):
        self.assertEqual(_selected(fused, wins), form)

    @parameterized.parameters(True, "auto")
    def test_exports_are_plain(self, fused):
        with forms.exporting():
            with forms.exporting():
                self.assertEqual(_selected(fused, wins=True), "plain")
            self.assertEqual(_selected(fused, wins=True), "plain")
        self.assertEqual(_selected(fused, wins=True), "fused")

    def test_exporting_ends_with_an_error(self):
        with self.assertRaises(KeyError), forms.exporting():
            raise KeyError
        self.assertFalse(forms.is_exporting())

    def test_exporting_is_of_one_thread(self):
        found = []
        with forms.exporting():
            thread = threading.Thread(target=lambda: found.append(forms.is_exporting()))
            thread.start()
            thread.join()
        self.assertEqual(found, [False])

    # An unknown batch counts as 1024; the least size is 4 MiB for "senet".
    @parameterized.parameters(
        ([1024, 32, 32], tf.float32, True),
        ([1024, 32, 31], tf.float32, False),
        ([None, 32, 32], tf.float32, True),
        ([None, 32, 31], tf.float32, False),
        ([0, 32, 32], tf.float32, False),
        ([512, 32, 32], tf.float64, True),
        ([4096, 32, 32], tf.bfloat16, False),
        ([4096, 32, 32], tf.float16, False),
    )
    def test_gain_depends_on_size_and_type(self, shape, dtype, expected):
        with mock.patch.object(tf.config, "get_visible_devices", return_value=[]):
            self.assertEqual(forms.wins("senet", shape, dtype), expected)

    def test_does_not_claim_gain_where_none_was_measured(self):
        with mock.patch.object(tf.config, "get_visible_devices", return_value=["gpu"]):
            self.assertFalse(forms.wins("senet", [4096, 32, 32], tf.float32))

    # 26 fields of width 16: 43264 bytes of products a row in the first layer, and
    # 212992 in the next, if it is not the last. The last has none.
    @parameterized.parameters(
        (96, [128], False),
        (96, [128, 128], False),
        (97, [128, 128], True),
        (157, [128, 128, 128], False),
        (158, [128, 128, 128], True),
        (None, [128, 128, 128], True),
    )
    def test_automatic_choice_for_cin(self, batch, units, fused):
        x0 = tf.TensorSpec([batch, 26, 16])
        maps = [26, *units[:-1]]
        kernels = [tf.TensorSpec([h * 26, o]) for h, o in zip(maps, units, strict=True)]
        biases = [tf.TensorSpec([o]) for o in units]
        with mock.patch.object(fused_cin, "cin", return_value="fused"):
            found = compressed_interaction._fused_wins(x0, units)
            self.assertEqual(found, fused)
            if fused:
                activations = [None] * (len(units) - 1)
                self.assertEqual(
                    functional.cin(x0, kernels, biases, activations), "fused"
                )

    @parameterized.parameters(
        (15, [32, 32], False), (16, [32, 32], True), (15, [32, 32, 32], True)
    )
    def test_few_fields_keep_two_layers_plain(self, fields, units, fused):
        x0 = tf.TensorSpec([4096, fields, 16])
        self.assertEqual(compressed_interaction._fused_wins(x0, units), fused)

    @parameterized.parameters(True, False)
    def test_automatic_choice_for_senet(self, as_list):
        x = tf.TensorSpec([4096, 16, 16])
        if as_list:
            x = [tf.TensorSpec([4096, 16])] * 16
        with mock.patch.object(fused_senet, "senet", return_value="fused"):
            self.assertEqual(functional.senet(x, None, None, None, None), "fused")
