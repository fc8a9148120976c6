"""Real components, each started when the first test asks for it and stopped at the end of the run."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from services.cli.stack.handle import Stack
from tests.support.components import component
from tests.support.timeouts import own_time_only

# The tiny model's matrices are too small to share: a second thread would only wait. Read when numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A machine that stands still for a moment is no fault of an example.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SHARED = ("redis_url", "kafka_bootstrap", "triton_address", "stack", "api_server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test pays for its own time only: whoever comes first starts the component, which has a patience of its own."""
    own_time_only(items, SHARED)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`redis://127.0.0.1:PORT/0` of a real Redis, shared by the session: use keys of your own."""
    with component("redis", tmp_path_factory.mktemp("redis")) as ports:
        yield f"redis://127.0.0.1:{ports['port']}/0"


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`127.0.0.1:PORT` of a real Kafka broker, shared by the session: use topics of your own; none exists."""
    with component("kafka", tmp_path_factory.mktemp("kafka")) as ports:
        yield f"127.0.0.1:{ports['port']}"


@pytest.fixture(scope="session")
def triton_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`127.0.0.1:PORT` of the gRPC port of a real Triton that serves the model `tiny`."""
    with component("triton", tmp_path_factory.mktemp("triton")) as ports:
        yield f"127.0.0.1:{ports['grpc']}"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, real and alone: `stack.key`, `stack.gateways`, `stack.kill(name)`, `pause`, `resume`, `wait_ready`.

    Tests share it, so each leaves it ready.
    """
    with Stack(tmp_path_factory.mktemp("stack"), ports="free", tied=True) as running:
        running.wait_ready()
        yield running
