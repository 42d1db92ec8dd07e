"""Every layer trains on two parameter servers."""

import socket

import pytest
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.layers.parts import base
from monolith_tf.testing import parameter_servers

_PARTITIONERS = tf.distribute.experimental.partitioners
APART = {"GradNorm"}  # takes losses; a test of its own
CASES = (
    *(
        (name, lambda name=name: getattr(layers, name).example(base.Sizes()))
        for name in layers.LAYERS
        if name not in APART
    ),
    ("CIN_fused", lambda: (layers.CIN([3, 2], "relu", fused=True), (4, 3, 2))),
    (
        "Dense_in_parts",
        lambda: (
            layers.Dense(
                2,
                activation="prelu",
                allow_kernel_norm=True,
                partitioner=_PARTITIONERS.FixedShardsPartitioner(3),
                kernel_regularizer="l2",
            ),
            (4, 3),
        ),
    ),
    ("SeNet_fused", lambda: (layers.SeNet(3, 2, fused=True), (4, 3, 2))),
)
"""Names, and functions that return a layer and the shapes of its inputs."""


def _coordinator():
    """Returns the coordinator of a cluster of one worker and two parameter servers."""
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("localhost", 0))
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    spec = tf.train.ClusterSpec({"worker": addresses[:1], "ps": addresses[1:]})
    config = tf.compat.v1.ConfigProto()
    # With one thread, the default on a small machine, the servers wait for each other.
    config.inter_op_parallelism_threads = 4
    servers = [
        tf.distribute.Server(spec, job_name=job, task_index=i, config=config)
        for job, i in (("worker", 0), ("ps", 0), ("ps", 1))
    ]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, rpc_layer="grpc"
    )
    # Splits even the smallest variable in two, unlike a job.
    strategy = tf.distribute.ParameterServerStrategy(
        resolver, variable_partitioner=_PARTITIONERS.FixedShardsPartitioner(2)
    )
    return tf.distribute.coordinator.ClusterCoordinator(strategy), servers


@pytest.mark.distributed
@pytest.mark.timeout(60)
class ParameterServersTest(testing.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.coordinator, cls.servers = _coordinator()

    @parameterized.named_parameters(*CASES)
    def test_trains(self, example):
        layer, input_shape = example()
        copy = parameter_servers.run(
            self, layer, self.coordinator, input_shape=input_shape
        )
        self.assertEqual(copy.get_config(), layer.get_config())

    def test_grad_norm_trains(self):
        with self.coordinator.strategy.scope():
            layer = layers.GradNorm(["click", "like"])
            layer.build(None)
            optimizer = tf_keras.optimizers.SGD(0.1)
            optimizer.build(layer.trainable_variables)

        @tf.function
        def step():
            self.coordinator.strategy.run(replica_step)

        def replica_step():
            shared = tf.constant([1.0, 2.0])
            losses = [tf.reduce_sum(shared), tf.reduce_sum(3.0 * shared)]
            with tf.GradientTape() as tape:
                loss, _ = layer(losses, shared)
            gradients = tape.gradient(loss, layer.trainable_variables)
            optimizer.apply_gradients(
                zip(gradients, layer.trainable_variables, strict=True)
            )

        self.coordinator.schedule(step)
        self.coordinator.join()
        # The loss with the smaller gradient gains weight.
        click, like = layer.task_weights()
        self.assertGreater(click, like)
        self.assertIn("/job:ps/", layer.weights[0].device)
