"""What a pool teaches about itself: the time to ready, the service time, the arrivals, the hold.

Small, immutable, and a plain dictionary for the ConfigMap that carries it across a restart of the operator.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from millrace_operator.core.holds import KEPT, Gap, Gaps, best, saw
from millrace_operator.core.need import FAST_S, SLOW_S
from millrace_operator.core.vocabulary import Learned

DEFAULT_READY_S: Final = 60.0  # before the first pod was seen to become ready
GAIN: Final = 0.2  # of a new pod in mean and deviation
FIRST_DEVIATION: Final = 0.25  # of the first time
OUTLIER: Final = 4.0  # deviations above the mean at which a time is cut off: a pod that waited for a node or an image
SPACING_S: Final = 1.0  # signals closer than this replace each other
LEAST_SPAN_S: Final = 5.0  # over which arrivals are counted at the very beginning
ENDS: Final = 20  # tasks that must have ended before a new owner's service time is believed
MOST: Final = 1e7  # of any number read from outside


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds from a pod's creation to its readiness: mean and mean absolute deviation (as RFC 6298 does it)."""

    mean_s: float = DEFAULT_READY_S
    deviation_s: float = FIRST_DEVIATION * DEFAULT_READY_S
    pods: int = 0

    @property
    def ready_s(self) -> float:
        """Mean and deviation: about the 80th percentile."""
        return max(self.mean_s + self.deviation_s, 1.0)

    def learn(self, seconds: float) -> "ColdStart":
        """A pod became ready. One that never does teaches nothing, and one that took very long only so much.

        >>> ColdStart().learn(40.0).ready_s, ColdStart().learn(40.0).learn(4000.0).ready_s
        (50.0, 64.0)
        """
        if not self.pods:
            return ColdStart(seconds, FIRST_DEVIATION * seconds, 1)
        least = FIRST_DEVIATION / 2 * self.mean_s  # pods alike must not make the next one an outlier
        seconds = min(seconds, self.mean_s + OUTLIER * max(self.deviation_s, least))
        deviation_s = self.deviation_s + GAIN * (abs(seconds - self.mean_s) - self.deviation_s)
        return ColdStart(self.mean_s + GAIN * (seconds - self.mean_s), deviation_s, self.pods + 1)


@dataclass(frozen=True, slots=True)
class Start:
    """A pod's way to its first readiness: `ready_at` is None before; instants are Unix s."""

    uid: str
    created: float
    ready_at: float | None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A signal's counts. `arrived`: tasks that had come by then; counts of one epoch can be compared."""

    at: float  # Unix s
    epoch: int
    arrived: float
    inside: int = 0  # tasks waiting and running
    busy: int = 0  # slots


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Arrival rates from a counter that begins anew with each epoch. `samples` reach back as far as the slow window."""

    samples: tuple[Sample, ...] = ()

    def counted(self, sample: Sample) -> "Arrivals":
        """With a signal that carries the counter. What is not older, or came before a new epoch, is dropped.

        >>> Arrivals().counted(Sample(0.0, 1, 10)).counted(Sample(20.0, 1, 50)).rates()
        (2.0, 2.0)
        """
        kept = [s for s in self.samples if s.epoch == sample.epoch and s.at < sample.at]
        if len(kept) > 1 and sample.at - kept[-2].at < SPACING_S:
            kept.pop()
        start = max((i for i, s in enumerate(kept) if s.at <= sample.at - SLOW_S), default=0)
        return Arrivals((*kept[start:], sample))

    def derived(self, at: float, epoch: int, inside: int, busy: int, service_s: float) -> "Arrivals":
        """With a signal that has no counter: what came = what is inside more than before + what ended meanwhile.

        What ended is reckoned from the busy slots and the mean service time: 16 slots that take 4 s end 4 tasks a second.

        >>> Arrivals().derived(0.0, 1, 16, 16, 4.0).derived(20.0, 1, 56, 16, 4.0).rates()
        (6.0, 6.0)
        """
        sample = Sample(at, epoch, 0.0, inside, busy)
        last = self.samples[-1] if self.samples else sample
        if last.epoch == epoch and last.at < at:
            ended = (last.busy + busy) / 2 * (at - last.at) / max(service_s, 1e-3)
            sample = replace(sample, arrived=last.arrived + inside - last.inside + ended)
        return self.counted(sample)

    def rates(self) -> tuple[float, float]:
        """Tasks a second over the fast and the slow window, up to the newest sample."""
        return self._rate(FAST_S), self._rate(SLOW_S)

    def _rate(self, window_s: float) -> float:
        if len(self.samples) < 2:
            return 0.0
        newest = self.samples[-1]
        oldest = next((s for s in reversed(self.samples) if s.at <= newest.at - window_s), self.samples[0])
        return max(newest.arrived - oldest.arrived, 0.0) / max(newest.at - oldest.at, LEAST_SPAN_S)


@dataclass(frozen=True, slots=True)
class Estimates:
    """All that is learned of one pool."""

    cold_start: ColdStart = field(default_factory=ColdStart)
    service_s: float = 1.0  # mean of a task
    arrivals: Arrivals = field(default_factory=Arrivals)
    gaps: Gaps = field(default_factory=Gaps)
    counted: frozenset[str] = frozenset()  # pods (uid) whose start was learned from or never will be

    def saw_pods(self, pods: Iterable[Start]) -> "Estimates":
        """All pods that are there. Each teaches once, with its first readiness, unless a container had to start again."""
        cold_start, seen = self.cold_start, set[str]()
        for pod in sorted(pods, key=lambda pod: (pod.ready_at or 0.0, pod.uid)):
            if pod.uid in self.counted or pod.restarts or pod.ready_at is not None:
                seen.add(pod.uid)
            if pod.ready_at is not None and not pod.restarts and pod.uid not in self.counted:
                cold_start = cold_start.learn(max(pod.ready_at - pod.created, 0.0))
        return replace(self, cold_start=cold_start, counted=frozenset(seen))

    def saw_service(self, service_s: float, ended: int | None = None) -> "Estimates":
        """The dispatcher's mean. `ended`: tasks that it saw end; a new owner has only a guess until there are some."""
        believed = service_s > 0 and (ended is None or ended >= ENDS)
        return replace(self, service_s=service_s) if believed else self

    def wished(self, pods: int | None, now: float) -> "Estimates":
        """A decision's wish, for the hold; None, of a tick that could not see, says nothing."""
        return self if pods is None else replace(self, gaps=saw(self.gaps, pods, self.cold_start.ready_s, now))

    def learned(self, least_hold_s: float, most_hold_s: float) -> Learned:
        """What the law needs; the hold lies within these bounds of the spec."""
        ready_s = self.cold_start.ready_s
        return Learned(ready_s, best(self.gaps, ready_s, least_hold_s, most_hold_s))


def to_dict(estimates: Estimates) -> dict[str, Any]:
    """What is worth keeping, in JSON's types."""
    cold = estimates.cold_start
    return {
        "coldStart": {"meanSeconds": cold.mean_s, "deviationSeconds": cold.deviation_s, "pods": cold.pods},
        "serviceSeconds": estimates.service_s,
        "gaps": [[gap.seconds, gap.pods] for gap in estimates.gaps.past],
        "countedPods": sorted(estimates.counted),
    }


def from_dict(kept: Mapping[str, Any]) -> Estimates:
    """The reverse. What cannot be read, or makes no sense, is as if it had not been learned: a ConfigMap can be edited.

    >>> from_dict(to_dict(Estimates().saw_service(2.5))) == Estimates().saw_service(2.5)
    True
    >>> from_dict({"coldStart": 7, "serviceSeconds": "fast"}) == Estimates()
    True
    """
    estimates = Estimates()
    with contextlib.suppress(KeyError, TypeError, ValueError):
        cold = kept["coldStart"]
        mean_s, deviation_s = _positive(cold["meanSeconds"]), _positive(cold["deviationSeconds"], least=0.0)
        estimates = replace(estimates, cold_start=ColdStart(mean_s, deviation_s, int(cold["pods"])))
    with contextlib.suppress(KeyError, TypeError, ValueError):
        estimates = replace(estimates, service_s=_positive(kept["serviceSeconds"]))
    with contextlib.suppress(KeyError, TypeError, ValueError):
        past = tuple(Gap(_positive(seconds), int(_positive(pods))) for seconds, pods in kept["gaps"])
        estimates = replace(estimates, gaps=Gaps(past=past[-KEPT:]))
    with contextlib.suppress(KeyError, TypeError, ValueError):
        estimates = replace(estimates, counted=frozenset(map(str, kept["countedPods"])))
    return estimates


def _positive(value: Any, least: float = 1e-3) -> float:
    number = float(value)
    if not least <= number <= MOST:
        raise ValueError(number)
    return number
