"""kopf fills the store: one watch for each kind, and nothing else of kopf's.

Its other handlers write annotations and finalizers into every object they see, from a standby too, and they are told of
edges; the reconciliation here is level-triggered. kopf does not tell of an object that went while its watch was broken, so
each kind is listed anew now and then. And at its end it cancels every task of the loop that was made after its start, so it has
a loop of its own, in a thread.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import kopf

from millrace_operator.adapters.kube_cluster import WATCHED, Kind
from millrace_operator.ports import ApiError, Cluster
from millrace_operator.store import OURS, Store

Tell: TypeAlias = Callable[..., None]  # calls a function in the operator's own loop

log = logging.getLogger(__name__)

RELIST_S: Final = 60.0
WAIT_S: Final = 0.5  # between two looks for custom resources that are not served yet
EXIT_S: Final = 5.0


async def watch(store: Store, cluster: Cluster, namespace: str) -> None:
    """Keep the store current until cancelled. Waits until the custom resources are served."""
    await _served(store, cluster)
    stop = threading.Event()
    loop = asyncio.get_running_loop()

    def tell(change: Tell, *what: object) -> None:
        loop.call_soon_threadsafe(change, *what)

    kopfs = _kopf(store, namespace, stop, tell)
    watching = asyncio.create_task(asyncio.to_thread(asyncio.run, kopfs), name="kopf")
    relisting = asyncio.create_task(_relist(store, cluster), name="relist")
    try:
        await asyncio.wait((watching, relisting), return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, relisting):
            if task.done():
                task.result()
        raise RuntimeError("kopf stopped watching")
    finally:
        stop.set()
        relisting.cancel()
        await asyncio.gather(watching, relisting, return_exceptions=True)


async def _served(store: Store, cluster: Cluster) -> None:
    told = False
    while True:
        try:
            store.digests = await cluster.digests()
            missing = set(OURS) - store.digests.keys()
        except ApiError as reason:
            missing, why = set(OURS), str(reason)
        else:
            why = f"the cluster does not serve {', '.join(sorted(missing))}: install the CRDs"
        if not missing:
            return
        if not told:
            log.warning("waiting: %s", why)
            told = True
        await asyncio.sleep(WAIT_S)


async def _relist(store: Store, cluster: Cluster) -> None:
    while True:
        delay = RELIST_S
        for kind in WATCHED:
            store.begin(kind)
            try:
                store.replace(kind, await cluster.list(kind))
            except ApiError as reason:
                log.warning("%s objects cannot be listed: %s", kind, reason)
                delay = WAIT_S if not store.listed.is_set() else RELIST_S / 10
        await asyncio.sleep(delay)
        try:
            store.digests = await cluster.digests()
        except ApiError as reason:
            log.warning("the custom resource definitions cannot be read: %s", reason)


async def _kopf(store: Store, namespace: str, stop: threading.Event, tell: Tell) -> None:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    for name, kind in WATCHED.items():
        labels: dict[str, Any] = {kind.watched: kopf.PRESENT} if kind.watched else {}
        kopf.on.event(*_selector(kind), id=name, registry=registry, labels=labels)(_told(store, name, tell))
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout, settings.networking.connect_timeout = 30, 5
    settings.watching.server_timeout, settings.watching.connect_timeout = 600, 5
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.exit_timeout = EXIT_S
    await kopf.operator(
        registry=registry, settings=settings, standalone=True, namespaces=[namespace], stop_flag=stop, memo=None
    )


def _login(**asked: Any) -> Any:
    """As the pod's account in a cluster, else by KUBECONFIG."""
    return kopf.login_with_service_account(**asked) or kopf.login_with_kubeconfig(**asked)


def _selector(kind: Kind) -> tuple[str, ...]:
    return (kind.group, kind.version, kind.plural) if kind.group else (kind.version, kind.plural)


def _told(store: Store, kind: str, tell: Tell) -> Callable[..., Any]:
    async def told(event: Any, **_: Any) -> None:
        body = event["object"]
        if event["type"] == "DELETED":
            tell(store.drop, kind, body)
        else:
            tell(store.put, kind, body)

    return told
