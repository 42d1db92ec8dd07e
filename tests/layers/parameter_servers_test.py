"""Every layer trains on two parameter servers."""

import inspect
import socket

import pytest
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import parameter_servers

_PARTITIONERS = tf.distribute.experimental.partitioners
LAYERS = (
    ("add_bias", lambda: layers.AddBias(), (4, 3)),
    ("agru_cell", lambda: layers.AGRUCell(2, "AUGRU"), [(4, 3), (4, 2), (4, 1)]),
    ("all_int", lambda: layers.AllInt(2), (4, 3, 2)),
    ("auto_int", lambda: layers.AutoInt(2), (4, 3, 2)),
    ("avg_pooling", lambda: layers.AvgPooling(), [(4, 2), (4, 2)]),
    ("batch_norm", lambda: layers.BatchNorm(), (4, 3)),
    ("can", lambda: layers.CAN(1, "prelu", is_seq=True), [(4, 2, 3, 2), (4, 6)]),
    ("cdot", lambda: layers.CDot(2, [3]), (4, 3, 2)),
    ("cin", lambda: layers.CIN([3, 2], "prelu"), (4, 3, 2)),
    ("cin_fused", lambda: layers.CIN([3, 2], "relu", fused=True), (4, 3, 2)),
    (
        "dcn",
        lambda: layers.DCN(
            1,
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
    ("dien", lambda: layers.DIEN(2, "AUGRU"), [(4, 2), (4, 3, 2)]),
    ("din", lambda: layers.DIN([2, 1], "prelu"), [(4, 2), (4, 3, 2)]),
    ("dmr_u2i", lambda: layers.DMR_U2I(2), [(4, 3), (4, 3, 2)]),
    ("dot_interaction", lambda: layers.DotInteraction(), [(4, 2), (4, 2)]),
    ("dropout", lambda: layers.Dropout(0.5), (4, 3)),
    ("feature_cross", lambda: layers.FeatureCross(2), (4, 4)),
    (
        "group_int",
        lambda: layers.GroupInt(use_attention=True, attention_units=[2, 1]),
        (((4, 2, 3), (4, 1, 3)),),
    ),
    ("irazor", lambda: layers.iRazor([0, 1, 3], feature_weight=[1, 2]), (4, 2, 3)),
    ("layer_norm", lambda: layers.LayerNorm(), (4, 3)),
    ("lhuc_tower", lambda: layers.LHUCTower([3, 2], [2]), [(4, 3), (4, 2)]),
    ("logit_correction", lambda: layers.LogitCorrection("prelu", True), (4, 2)),
    ("max_pooling", lambda: layers.MaxPooling(), [(4, 2), (4, 2)]),
    (
        "mixed_nas",
        lambda: layers.MixedNASLayer([[0, 2], [0, 1, 2]], ["a", "b"], size_penalty=0.1),
        (4, 5),
    ),
    ("mlp", lambda: layers.MLP([3, 2], enable_batch_normalization=True), (4, 3)),
    (
        "mmoe",
        lambda: layers.MMoE(2, [2], num_experts=2, gate_type="noise_topk", topk=1),
        (4, 3),
    ),
    (
        "nas_gating",
        lambda: layers.NASGatingLayer(["a", "b"], [2, 1], use_logistic=True),
        (4, 3),
    ),
    ("se_net", lambda: layers.SeNet(3, 2), (4, 3, 2)),
    ("se_net_fused", lambda: layers.SeNet(3, 2, fused=True), (4, 3, 2)),
    ("simple_nas", lambda: layers.SimpleNasLayer(["a", "b"], [2, 1]), (4, 3)),
    ("simple_nas_v2", lambda: layers.SimpleNasV2Layer(["a", "b"], [2, 1]), (4, 3)),
    ("snr", lambda: layers.SNR(2, 3), [(4, 2), (4, 2)]),
    ("sum_pooling", lambda: layers.SumPooling(), [(4, 2), (4, 2)]),
    *(
        (name.lower(), getattr(layers, name), (4, 3))
        for name, module in layers.NAMES.items()
        if module == "activation_layers"
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

    @parameterized.named_parameters(*LAYERS)
    def test_trains(self, make, input_shape):
        layer = make()
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

    def test_no_layer_is_left_out(self):
        classes = {
            cls
            for name in layers.NAMES
            if inspect.isclass(cls := getattr(layers, name))
            and issubclass(cls, layers.Layer)
        }
        tried = {type(make()) for _, make, _ in LAYERS} | {layers.GradNorm}
        self.assertEqual(classes - tried, set())
