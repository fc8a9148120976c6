"""The words of the control law: what the spec says, what is seen, learned and remembered, and what comes out."""

import math
from dataclasses import dataclass, field
from enum import StrEnum


class Mode(StrEnum):
    """Who moves the pool: `spec.scaling.mode`."""

    AUTO = "Auto"
    MANUAL = "Manual"
    PAUSED = "Paused"
    EXTERNAL = "External"


class ScalingReason(StrEnum):
    """Why the number is what it is; an Event's reason."""

    WORK_WAITS = "WorkWaits"  # up: more waits than the pods will have done in time
    LOAD_GREW = "LoadGrew"  # up: more arrives than they should carry
    FROM_ZERO = "FromZero"  # up: something came and nobody was there
    LOAD_FELL = "LoadFell"  # down: fewer were enough for the whole hold
    IDLE = "Idle"  # to zero
    BOUNDS = "Bounds"  # moved by minReplicas, maxReplicas or a manual floor alone
    STEADY = "Steady"
    HELD = "Held"  # fewer would do, but not for long enough yet
    CONFIRMING = "Confirming"  # one step more would be better, if that lasts
    LIMITED = "Limited"  # another number is wanted and a bound forbids it
    SIGNAL_STALE = "SignalStale"
    SIGNAL_LOST = "SignalLost"
    LAG = "KafkaLag"  # up, blind: by the lag alone
    MODE = "ModeNotAuto"


class Bound(StrEnum):
    """What kept the number from being the wish."""

    NONE = ""
    MINIMUM = "minReplicas"
    MAXIMUM = "maxReplicas"
    STEP = "stepLimits"
    HOLD = "hold"
    CONFIRM = "confirmation"  # a small step has to last first
    IDLE = "idleSeconds"
    MANUAL = "manualHold"
    SIGNAL = "signal"  # too old to move anything
    MODE = "mode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the pool's spec says of scaling. 0 <= minimum <= maximum; slots, step_up >= 1; times in seconds."""

    mode: Mode = Mode.AUTO
    minimum: int = 1
    maximum: int = 1
    slots: int = 8  # tasks that one pod runs at once
    headroom: float = 0.75  # of the slots shall be busy, in (0, 1]
    wait_s: float = 5.0  # slo.queueWaitSeconds
    idle_s: float = 600.0  # before zero
    manual_hold_s: float = 600.0  # a person's `kubectl scale` is a floor for this long
    step_up: int = 8  # pods ordered within any step_period_s
    step_period_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Manual:
    """A person set the replicas: how many and when (Unix s)."""

    replicas: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is seen of a pool. Work is in seconds of one slot; nothing of it is trusted beyond its signal's age."""

    replicas: int  # asked for now: the pool's spec.replicas
    ready: int = 0  # pods that serve and do not drain
    starting: tuple[float, ...] = ()  # births (Unix s) of the pods that are not ready yet and do not drain
    draining: int = 0  # pods that drain and could be taken back
    signal_age_s: float = math.inf  # since the dispatcher's last word; inf: there was none
    waiting: int = 0  # tasks that could be dispatched
    work_s: float = 0.0  # their estimated service time
    running: int = 0  # tasks
    arrivals_fast: float = 0.0  # tasks a second over the last 20 s
    arrivals_slow: float = 0.0  # over the last 60 s
    service_s: float = 1.0  # mean service time of a task
    lag: int | None = None  # tasks in Kafka beyond the committed offsets; None: unknown
    manual: Manual | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """What experience says, from `learning`: seconds from an order to a ready pod (about p80), and the hold."""

    ready_s: float
    hold_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What a tick leaves to the next. Empty at first: then everything counts as having been wished just now."""

    wishes: tuple[tuple[float, int], ...] = ()  # (instant, pods), each fewer than the one before: maxima of any window
    above_since: float | None = None  # the wish has been above the replicas
    below_since: float | None = None  # the held wish has been below them
    active_at: float | None = None  # last instant at which something waited, ran or arrived, or nobody could see
    ups: tuple[tuple[float, int], ...] = ()  # (instant, pods) ordered by feedback within the last step period
    ticked_at: float | None = None  # when the tick was that left this; None: nobody looked yet


@dataclass(frozen=True, slots=True)
class Need:
    """The wish of one tick and what it came from."""

    pods: int  # what would be right without any bound
    load: float = 0.0  # slots kept busy by what arrives (erlangs)
    carried: float = 0.0  # pods for the load, with head-room
    backlog_s: float = 0.0  # work that will wait when a pod ordered now is ready
    burn_s: float = 0.0  # within which that shall be gone
    service_s: float = 0.0  # mean service time reckoned with


@dataclass(frozen=True, slots=True)
class Outcome:
    """Before it is put into words: the number, its reason, the bound in its way, the need and what to remember."""

    to: int
    reason: ScalingReason
    bound: Bound
    need: Need
    memory: Memory = field(repr=False)
    until: float = 0.0  # instant (Unix s) at which the hold, the confirmation or the idle time ends; 0: there is none
