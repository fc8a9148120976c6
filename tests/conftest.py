"""Real components, each started when the first test asks for it and stopped at the end of the run."""

from collections.abc import Iterator

import pytest

from tests.support import components


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`redis://127.0.0.1:PORT/0` of a real Redis, shared by the session: use keys of your own."""
    with components.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`127.0.0.1:PORT` of a real Kafka broker, shared by the session: use topics of your own; none exists."""
    with components.kafka(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap
