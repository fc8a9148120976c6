"""What Kubernetes says of a pool's pods, as facts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from millrace_operator.core.learning import Start
from millrace_operator.core.troubles import PodFacts

Object = Mapping[str, Any]


def instant(text: str) -> float:
    """Unix seconds of a Kubernetes time.

    >>> instant("1970-01-01T00:01:00Z")
    60.0
    """
    return datetime.fromisoformat(text).timestamp()


def facts_of(pod: Object, *, draining: bool) -> PodFacts:
    """What is known of a pod; one that is being deleted drains."""
    status = pod.get("status", {})
    containers = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    waiting: Mapping[str, str] = next(
        (c["state"]["waiting"] for c in containers if "waiting" in c.get("state", {})), {}
    )
    ended: Mapping[str, str] = next(
        (c["lastState"]["terminated"] for c in containers if "terminated" in c.get("lastState", {})), {}
    )
    scheduled = _condition(pod, "PodScheduled")
    reason = waiting.get("reason", "")
    return PodFacts(
        name=pod["metadata"]["name"],
        created=instant(pod["metadata"]["creationTimestamp"]),
        ready_since=ready_since(pod),
        draining=draining or terminating(pod),
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else None,
        waiting="" if reason in ("PodInitializing", "ContainerCreating") else reason,
        message=waiting.get("message") or ended.get("message") or ended.get("reason") or "",
        restarts=sum(c.get("restartCount", 0) for c in containers),
    )


def start_of(pod: Object) -> Start:
    """How long it took to be ready, for what is learned of cold starts."""
    facts = facts_of(pod, draining=False)
    return Start(pod["metadata"]["uid"], facts.created, facts.ready_since, facts.restarts)


def ready_since(pod: Object) -> float | None:
    """Since when it is ready; None: it is not."""
    ready = _condition(pod, "Ready")
    return instant(ready["lastTransitionTime"]) if ready.get("status") == "True" else None


def terminating(pod: Object) -> bool:
    """Is it being deleted, or did it end?"""
    return "deletionTimestamp" in pod["metadata"] or pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def refusal(deployment: Object) -> str:
    """Why its pods cannot be made; empty: they can."""
    failure = _condition(deployment, "ReplicaFailure")
    return str(failure.get("message", "")) if failure.get("status") == "True" else ""


def by_hand(pool: Object, ours: Sequence[str]) -> float | None:
    """When somebody else set the pool's replicas last (Unix s), if they are the last who did; None: we did, or the creator.

    The API server remembers who owns each field; a manifest that is made with replicas is not a hand at the wheel.
    """
    created = instant(pool["metadata"]["creationTimestamp"])
    for entry in pool["metadata"].get("managedFields", ()):
        owns = "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        if owns and entry.get("manager") not in ours and "time" in entry:
            at = instant(entry["time"])
            return at if entry.get("subresource") == "scale" or at > created + 1 else None
    return None


def _condition(owner: Object, kind: str) -> Mapping[str, Any]:
    conditions = owner.get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition.get("type") == kind), {})
