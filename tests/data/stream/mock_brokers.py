"""librdkafka's mock brokers, whose faults tests can order."""

import contextlib
import ctypes
import glob
import pathlib

import confluent_kafka

FETCH, LIST_OFFSETS, METADATA = 1, 2, 3


def _library():
    folder = pathlib.Path(confluent_kafka.__file__).parent.parent
    found = glob.glob(str(folder / "confluent_kafka.libs" / "librdkafka-*.so*"))
    lib = ctypes.CDLL(found[0])
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, *arguments in (
        ("rd_kafka_conf_new", pointer),
        ("rd_kafka_new", pointer, number, pointer, text, ctypes.c_size_t),
        ("rd_kafka_destroy", None, pointer),
        ("rd_kafka_mock_cluster_new", pointer, pointer, number),
        ("rd_kafka_mock_cluster_destroy", None, pointer),
        ("rd_kafka_mock_cluster_bootstraps", text, pointer),
        ("rd_kafka_mock_topic_create", number, pointer, text, number, number),
        (
            "rd_kafka_mock_partition_set_leader",
            number,
            pointer,
            text,
            ctypes.c_int32,
            ctypes.c_int32,
        ),
        ("rd_kafka_mock_broker_set_down", number, pointer, ctypes.c_int32),
        ("rd_kafka_mock_broker_set_up", number, pointer, ctypes.c_int32),
        (
            "rd_kafka_mock_push_request_errors_array",
            None,
            pointer,
            ctypes.c_int16,
            ctypes.c_size_t,
            ctypes.POINTER(number),
        ),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Brokers:
    """Some brokers.

    Attributes:
      address: Their addresses.
    """

    def __init__(self, number):
        self._lib = lib = _library()
        errors = ctypes.create_string_buffer(512)
        self._client = lib.rd_kafka_new(0, lib.rd_kafka_conf_new(), errors, 512)
        assert self._client, errors.value
        self._cluster = lib.rd_kafka_mock_cluster_new(self._client, number)
        found = lib.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.address = found.decode()

    def create(self, topic, partitions=1):
        name = topic.encode()
        self._lib.rd_kafka_mock_topic_create(self._cluster, name, partitions, 3)

    def fail(self, request, *codes):
        """Answers the next requests of a kind with errors."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(
            self._cluster, request, len(codes), array
        )

    def set_leader(self, topic, partition, broker):
        self._lib.rd_kafka_mock_partition_set_leader(
            self._cluster, topic.encode(), partition, broker
        )

    def set_down(self, broker, is_down):
        change = "down" if is_down else "up"
        getattr(self._lib, f"rd_kafka_mock_broker_set_{change}")(self._cluster, broker)

    def close(self):
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)


@contextlib.contextmanager
def running(number=3):
    brokers = Brokers(number)
    try:
        yield brokers
    finally:
        brokers.close()
