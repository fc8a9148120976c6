"""Wires the operator: the API server, Redis, signals, leadership, pools, configuration."""

import logging
import secrets
import time
from contextlib import nullcontext

from millrace_operator.adapters.dispatcher_signals import DispatcherSignals
from millrace_operator.adapters.kube_cluster import WATCHED, KubeCluster
from millrace_operator.adapters.watching import watch
from millrace_operator.adapters.worker_drains import WorkerDrains
from millrace_operator.core.desired import Installation
from millrace_operator.leadership import Leadership
from millrace_operator.pool_keeper import World
from millrace_operator.pools import Pools
from millrace_operator.settings import OperatorSettings
from millrace_operator.store import Store
from services.chassis.batched import addresses_of
from services.chassis.lifecycle import Service, run
from services.chassis.resp import Resp
from services.pools.owner_lookup import OwnerLookup
from services.pools.signals_listener import SignalsListener

STUCK_S = 60.0  # without a look at the pools; the process is started anew then


async def start(service: Service[OperatorSettings]) -> None:
    """Start order; the stop is the reverse: the lease is given up first."""
    settings = service.settings
    for chatty in ("httpx2", "kopf.objects", "kopf.activities", "kopf._core"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    redis = Resp(settings.redis_url)
    await service.enter("redis", redis)
    cluster = await service.enter("cluster", KubeCluster(settings.namespace))
    drains = await service.enter("drains", WorkerDrains())
    signals = await service.enter("signals", SignalsListener(OwnerLookup(redis)))
    store = Store(WATCHED)
    leadership = Leadership(cluster, settings.namespace, settings.name or f"operator-{secrets.token_hex(4)}")
    installed = Installation(
        worker_image=settings.worker_image,
        engine_image=settings.engine_image,
        pull_policy=settings.image_pull_policy,
        service_account=settings.worker_service_account,
        environment=settings.worker_environment,
        secret=settings.worker_secret,
        pull_secrets=tuple(addresses_of(settings.image_pull_secrets)),
    )
    pools = Pools(World(store, cluster, drains, DispatcherSignals(signals), installed), lambda: leadership.leading)
    store.subscribe(("WorkerPool",), lambda *_: signals.follow(name for _, name in store.all("WorkerPool")))
    signals.on_signal = pools.signalled
    await service.enter("looking", nullcontext(), ready=lambda: time.monotonic() - pools.stepped_at < STUCK_S)
    service.spawn("watch", watch(store, cluster, settings.namespace))
    service.spawn("leadership", leadership.run())
    service.spawn("pools", pools.run())


def main() -> None:
    """Run until told to stop."""
    run("operator", OperatorSettings, start)
