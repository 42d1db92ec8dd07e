"""Every layer with weights trains on two parameter servers."""

import socket

import pytest
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import parameter_servers

_PARTITIONERS = tf.distribute.experimental.partitioners
_LAYERS = (
    ("add_bias", lambda: layers.AddBias(), (4, 3)),
    ("batch_norm", lambda: layers.BatchNorm(), (4, 3)),
    (
        "dcn",
        lambda: layers.DCN(
            2,
            "mixed",
            num_experts=2,
            low_rank=2,
            allow_kernel_norm=True,
            use_dropout=True,
        ),
        (4, 3),
    ),
    (
        "dense",
        lambda: layers.Dense(
            2, activation="relu", allow_kernel_norm=True, inactive_relu_monitor=True
        ),
        (4, 3),
    ),
    (
        "dense_in_parts",
        lambda: layers.Dense(
            2,
            activation="prelu",
            allow_kernel_norm=True,
            partitioner=_PARTITIONERS.FixedShardsPartitioner(3),
            kernel_regularizer="l2",
        ),
        (4, 3),
    ),
    ("feature_cross", lambda: layers.FeatureCross(2), (4, 4)),
    ("layer_norm", lambda: layers.LayerNorm(), (4, 3)),
    ("mlp", lambda: layers.MLP([3, 2], enable_batch_normalization=True), (4, 3)),
    (
        "mmoe",
        lambda: layers.MMoE(2, [2], num_experts=2, gate_type="noise_topk", topk=1),
        (4, 3),
    ),
)


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
    # Cuts even the smallest variable in two, which a job would not.
    strategy = tf.distribute.ParameterServerStrategy(
        resolver, variable_partitioner=_PARTITIONERS.FixedShardsPartitioner(2)
    )
    return tf.distribute.coordinator.ClusterCoordinator(strategy), servers


@pytest.mark.distributed
class ParameterServersTest(testing.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.coordinator, cls.servers = _coordinator()

    @parameterized.named_parameters(*_LAYERS)
    def test_trains(self, make, input_shape):
        layer = make()
        copy = parameter_servers.run(
            self, layer, self.coordinator, input_shape=input_shape
        )
        self.assertNotEmpty(copy.weights)
