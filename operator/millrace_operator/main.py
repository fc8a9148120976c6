"""Wires the operator: the API server, Redis, Kafka, signals, leadership, configuration, pools."""

import logging
import secrets
from contextlib import nullcontext
from pathlib import Path

from millrace_operator.adapters.dispatcher_signals import DispatcherSignals
from millrace_operator.adapters.kafka_lag import KafkaLag
from millrace_operator.adapters.kube_cluster import WATCHED, KubeCluster
from millrace_operator.adapters.watching import watch
from millrace_operator.adapters.worker_drains import WorkerDrains
from millrace_operator.core.desired import Installation
from millrace_operator.core.scaling import BLIND_S
from millrace_operator.leaders_cluster import LeadersCluster
from millrace_operator.leadership import Leadership
from millrace_operator.pool_keeper import World
from millrace_operator.pools import Pools
from millrace_operator.publishing import Publishing
from millrace_operator.samples import Samples
from millrace_operator.settings import OperatorSettings
from millrace_operator.store import Store
from services.chassis.batched import addresses_of
from services.chassis.clock import monotonic
from services.chassis.lifecycle import Service, run
from services.chassis.metrics import operator_leads
from services.chassis.resp import Resp
from services.pools.owner_lookup import OwnerLookup
from services.pools.signals_listener import SignalsListener
from services.pools.topics import Lanes

STUCK_S = 60.0  # without a look at the pools: not ready, and people should look


async def start(service: Service[OperatorSettings]) -> None:
    """Start order; the stop is the reverse."""
    settings = service.settings
    for chatty in ("httpx2", "kopf"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    redis = Resp(settings.redis_url)
    await service.enter("redis", redis)
    cluster = await service.enter("cluster", KubeCluster(settings.namespace))
    drains = await service.enter("drains", WorkerDrains())
    listener = await service.enter("signals", SignalsListener(OwnerLookup(redis)))
    store = Store(WATCHED)
    leadership = Leadership(cluster, settings.namespace, settings.name or f"operator-{secrets.token_hex(4)}")

    def leading() -> bool:
        return leadership.leading

    def silent() -> list[str]:
        return [pool for _, pool in store.all("WorkerPool") if listener.age_s(pool) > BLIND_S] if leading() else []

    operator_leads.set_function(leading)
    ours = LeadersCluster(cluster, leading)
    lag = KafkaLag(settings.kafka_bootstrap, silent)
    world = World(store, ours, drains, DispatcherSignals(listener), installation(settings), lag.latest)
    pools = Pools(world, leading)
    lanes = Lanes(settings.kafka_bootstrap, partitions=settings.partitions, replication=settings.replication)
    publishing = Publishing(
        store,
        ours,
        redis,
        namespace=settings.namespace,
        leading=leading,
        ensure_topics=lanes.ensure,
        on_pool_verdict=pools.verdict,
        pool_ready=pools.ready,
    )
    store.subscribe(("WorkerPool",), lambda *_: listener.follow(pool for _, pool in store.all("WorkerPool")))
    listener.on_signal = pools.signalled
    await service.enter("pools", nullcontext(), ready=lambda: monotonic() - pools.stepped_at < STUCK_S)
    await service.enter("configuration", nullcontext(), ready=publishing.published)
    service.spawn("watch", watch(store, cluster, settings.namespace))
    service.spawn("leadership", leadership.run())
    service.spawn("lag", lag.run())
    leadership.acts(service.spawn("publishing", publishing.run()))
    leadership.acts(service.spawn("pools", pools.run()))
    if settings.samples:
        samples = Samples(
            Path(settings.samples),
            ours,
            namespace=settings.namespace,
            ledger=settings.samples_ledger,
            leading=leading,
        )
        leadership.acts(service.spawn("samples", samples.run()))


def installation(settings: OperatorSettings) -> Installation:
    """What the workers of all pools are made of."""
    return Installation(
        worker_image=settings.worker_image,
        engine_image=settings.engine_image,
        pull_policy=settings.image_pull_policy,
        service_account=settings.worker_service_account,
        environment=settings.worker_environment,
        checksum=settings.worker_checksum,
        secret=settings.worker_secret,
        pull_secrets=tuple(addresses_of(settings.image_pull_secrets)),
    )


def main() -> None:
    """Run until told to stop."""
    run("operator", OperatorSettings, start)
