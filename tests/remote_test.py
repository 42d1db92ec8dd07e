"""Python functions that run in the processes of parameter servers."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from monolith_tf import remote
from monolith_tf import testing
from monolith_tf.testing import server_processes


class RemoteTest(testing.TestCase):
    def test_a_call_without_servers_runs_in_this_process(self):
        @tf.function
        def call(numbers):
            return remote.call(server_processes.described, "a", numbers)

        for function in (call, call.python_function):
            found = json.loads(function(tf.constant([1, 2, 3])).numpy())
            self.assertEqual(found, {"pid": os.getpid(), "name": "a", "sum": 6})

    def test_the_result_has_the_function_s_dtype_and_any_shape(self):
        numbers = np.arange(6).reshape(2, 3)
        found = remote.call(server_processes.doubled, numbers, dtype=tf.int64)
        self.assertAllEqual(found, 2 * numbers)

    def test_an_error_keeps_its_message(self):
        with self.assertRaisesRegex(
            tf.errors.OpError, "`numbers` must not be negative. Received: -1"
        ):
            remote.call(server_processes.doubled, -1, dtype=tf.int32)

    def test_only_registered_functions_are_called(self):
        def other():
            return b""

        with self.assertRaisesRegex(tf.errors.OpError, "must be registered"):
            remote.call(other)


@pytest.mark.distributed
@pytest.mark.own_process
@pytest.mark.timeout(120)
class RemoteOnServersTest(testing.TestCase):
    def test_each_server_calls_its_own_function(self):
        with server_processes.ServerProcesses(2) as servers:
            token = servers.placement.token

            @tf.function
            def call_all(numbers):
                found = []
                for device in servers.placement.devices:
                    with tf.device(device):
                        found.append(
                            remote.call(
                                server_processes.described, "b", numbers, token=token
                            )
                        )
                return found

            found = [json.loads(f.numpy()) for f in call_all(tf.constant([5, 6]))]
            pids = [process.pid for process in servers.processes]
            self.assertEqual([each["pid"] for each in found], pids)
            self.assertEqual({each["sum"] for each in found}, {11})

            @tf.function
            def double(numbers):
                with tf.device(servers.placement.device(1)):
                    return remote.call(
                        server_processes.doubled, numbers, token=token, dtype=tf.int32
                    )

            with self.assertRaisesRegex(tf.errors.OpError, "must not be negative"):
                double(tf.constant(-3)).numpy()
            # An error does no harm to later calls.
            self.assertAllEqual(double(tf.constant([4])), [8])
