"""Why the pods of a pool do not become ready, in one sentence that stays while the trouble lasts.

Kubernetes shows the same trouble in turns: ErrImagePull, ImagePullBackOff and ContainerCreating, or Running,
CrashLoopBackOff and, for a moment, Ready. What is shown here appears once it was seen for `SHOW_S`, keeps its words while
the pod that it names is there, and goes once it was not seen for `CLEAR_S`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from millrace_operator.core.reasons import Reason

SHOW_S: Final = 10.0
CLEAR_S: Final = 30.0
LATE: Final = 2.0  # times the time to ready until an engine that runs and is not ready is in trouble
DETAIL: Final = 300  # characters that are quoted of Kubernetes' own words
CONFLICT: Final = 409


_IMAGE = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable")
)  # fmt: skip
_CONFIG = frozenset(("CreateContainerConfigError", "CreateContainerError", "RunContainerError"))
_WORDS: Final = {  # the most helpful to know first
    Reason.QUOTA_EXCEEDED: "a quota of the namespace is used up",
    Reason.OBJECT_REFUSED: "the API server does not take {what}",
    Reason.FIELDS_TAKEN: "somebody else has set fields of {what}, so it stays as it is",
    Reason.PODS_REFUSED: "pods are refused",
    Reason.UNSCHEDULABLE: "no node takes pod {pod}",
    Reason.IMAGE_PULL_FAILED: "an image of pod {pod} cannot be pulled",
    Reason.CONTAINER_CONFIG: "a container of pod {pod} cannot be made",
    Reason.CRASH_LOOP: "pod {pod} ends again and again ({restarts})",
    Reason.ENGINE_NOT_READY: "pod {pod} runs but its engine is not ready",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What Kubernetes says of a pod. Instants in Unix s."""

    name: str
    created: float
    ready_since: float | None = None  # None: not ready
    draining: bool = False  # or deleted
    unschedulable: str | None = None  # message of PodScheduled=False
    waiting: str = ""  # reason of the first container that waits, e.g. ImagePullBackOff
    message: str = ""  # what is said with it, or with the last termination
    restarts: int = 0  # of all its containers


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server did not do. `what`: to which object; `status`: HTTP's; `words`: its own."""

    what: str
    status: int
    words: str


@dataclass(frozen=True, slots=True)
class Found:
    """A trouble of a pod (empty: of the pool) and Kubernetes' words for it."""

    reason: Reason
    sentence: str
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown, and what may be shown next; given from tick to tick."""

    shown: Found | None = None
    seen_at: float = 0.0  # when that was last seen
    next: Reason | None = None
    next_since: float = 0.0


def find(
    pods: Sequence[PodFacts], refused: str, ready_s: float, now: float, objects: Sequence[Refusal] = ()
) -> list[Found]:
    """All troubles, the most helpful first.

    `refused`: the message of a ReplicaSet whose pods cannot be created; `objects`: what the operator could not do.

    >>> [found] = find([PodFacts(name="a", created=0.0, waiting="ErrImagePull", message="not found")], "", 60.0, now=5.0)
    >>> found.reason.value, found.sentence
    ('ImagePullFailed', 'an image of pod a cannot be pulled: not found')
    """
    found = [one for pod in pods if (one := _of(pod, ready_s, now))]
    if refused:
        reason = _quota_or(Reason.PODS_REFUSED, refused)
        found.append(Found(reason, _sentence(reason, refused)))
    for each in objects:
        reason = _quota_or(Reason.FIELDS_TAKEN if each.status == CONFLICT else Reason.OBJECT_REFUSED, each.words)
        found.append(Found(reason, _sentence(reason, each.words, what=each.what)))
    order = list(_WORDS)
    return sorted(found, key=lambda one: (order.index(one.reason), one.pod))


def debounce(before: Shown, found: Sequence[Found], now: float) -> Shown:
    """What to show now."""
    shown = before.shown
    same = [one for one in found if shown and one.reason is shown.reason]
    if shown and same:
        kept = shown if any(one.pod == shown.pod for one in same) else same[0]
        return Shown(kept, now)
    if shown and now - before.seen_at < CLEAR_S:
        return before
    if not found:
        return Shown()
    first = found[0]
    since = before.next_since if before.next is first.reason else now
    if now - since < SHOW_S:
        return Shown(next=first.reason, next_since=since)
    return Shown(first, now)


def usable(pods: Sequence[PodFacts], shown: Shown, now: float) -> int:
    """Pods that take tasks. While a pod's trouble is shown only those count that have been ready for a while already."""
    settled = CLEAR_S if shown.shown and shown.shown.pod else 0.0
    return sum(
        pod.ready_since is not None and now - pod.ready_since >= settled and not pod.draining for pod in pods
    )  # fmt: skip


def _quota_or(reason: Reason, words: str) -> Reason:
    return Reason.QUOTA_EXCEEDED if "quota" in words.lower() else reason


def _of(pod: PodFacts, ready_s: float, now: float) -> Found | None:
    if pod.ready_since is not None or pod.draining:
        return None
    reason = None
    if pod.unschedulable is not None:
        reason = Reason.UNSCHEDULABLE
    elif pod.waiting in _IMAGE:
        reason = Reason.IMAGE_PULL_FAILED
    elif pod.waiting in _CONFIG:
        reason = Reason.CONTAINER_CONFIG
    elif pod.waiting == "CrashLoopBackOff" or pod.restarts:
        reason = Reason.CRASH_LOOP
    elif not pod.waiting and now - pod.created > LATE * ready_s:
        reason = Reason.ENGINE_NOT_READY
    return Found(reason, _sentence(reason, pod.unschedulable or pod.message, pod), pod.name) if reason else None


def _sentence(reason: Reason, detail: str, pod: PodFacts | None = None, what: str = "") -> str:
    restarts = "" if pod is None else f"{pod.restarts} restart{'' if pod.restarts == 1 else 's'}"
    words = _WORDS[reason].format(pod=pod.name if pod else "", restarts=restarts, what=what)
    detail = " ".join(detail.split())[:DETAIL].rstrip(".")
    return f"{words}: {detail}" if detail else words
