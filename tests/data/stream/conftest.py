import pytest

from tests.data.stream import brokers


@pytest.fixture(scope="session")
def broker():
    with brokers.Broker() as running:
        yield running
