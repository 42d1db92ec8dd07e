import pytest

from tests.data.stream import brokers


@pytest.fixture(scope="session")
def broker():
    with brokers.running() as running:
        yield running
