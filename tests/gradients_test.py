"""Tests of gradients that live no longer than their graph."""

import gc
import weakref

import tensorflow as tf
from absl.testing import parameterized
from tensorflow.python.framework import ops

from monolith_tf import gradients
from monolith_tf import testing


@gradients.custom_gradient
def _product(x, y):
    """A product whose gradients are ten and a hundred times the true ones."""
    return x * y, lambda upstream: (10.0 * upstream * y, 100.0 * upstream * x)


@gradients.custom_gradient
def _double(x):
    return [2.0 * x, x], lambda first, second: 5.0 * first + 7.0 * second


class GradientsTest(testing.TestCase):
    def _taped(self):
        x, y = tf.constant(2.0), tf.constant(3.0)
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            z = _product(x, y)
        return [z, *tape.gradient(z, [x, y])]

    def _symbolic(self):
        x, y = tf.constant(2.0), tf.constant(3.0)
        z = _product(x, y)
        return [z, *tf.gradients(z, [x, y])]

    @parameterized.parameters("eager", "tape", "symbolic", "whole")
    def test_gradients_are_those_of_the_function(self, how):
        if how == "whole":
            function, x, y = tf.function(_product), tf.constant(2.0), tf.constant(3.0)
            with tf.GradientTape() as tape:
                tape.watch([x, y])
                z = function(x, y)
            found = [z, *tape.gradient(z, [x, y])]
        elif how == "eager":
            found = self._taped()
        else:
            found = tf.function(self._taped if how == "tape" else self._symbolic)()
        self.assertAllEqual(found, [6.0, 30.0, 200.0])

    def test_several_results_keep_their_form(self):
        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                first, second = _double(x)
                total = first + 3.0 * second
            return first, tape.gradient(total, x)

        self.assertAllEqual(step(tf.constant(1.0)), [2.0, 5.0 + 3.0 * 7.0])

    def test_a_graph_is_freed_with_its_function(self):
        function = tf.function(self._taped)
        graph = weakref.ref(function.get_concrete_function().graph)
        del function
        gc.collect()
        self.assertIsNone(graph())

    def test_what_others_entered_for_a_graph_can_be_forgotten(self):
        kept, dropped = (
            tf.function(lambda: tf.custom_gradient(lambda x: (x, lambda g: g))(1.0))
            for _ in range(2)
        )
        before = set(ops.gradient_registry.list())
        of_kept = kept.get_concrete_function().graph
        names = set(ops.gradient_registry.list()) - before
        graph = dropped.get_concrete_function().graph
        gradients.forget_gradients({graph})
        self.assertLen(names, 1)
        self.assertEqual(set(ops.gradient_registry.list()), before | names)
        gradients.forget_gradients({of_kept})
        self.assertEqual(set(ops.gradient_registry.list()), before)
