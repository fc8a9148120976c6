"""Conditions: what the operator says about an object, in words that programs may compare.

Each is a `metav1.Condition`. `kubectl wait --for=condition=Ready wp/x` waits for one; the reason is a `Reason`, never
free text; the message is for people. Nothing reads a condition as input.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta

from millrace_operator.core.declare import Generation, Schema, doc


class ConditionType(StrEnum):
    """Which question a condition answers."""

    ACCEPTED = "Accepted"  # is the spec right, with everything that it names?
    READY = "Ready"  # does it do what it is for, now?
    SCALING_ACTIVE = "ScalingActive"  # does the operator choose the number of workers?
    SCALING_LIMITED = "ScalingLimited"  # does a bound keep it from the number that the work asks for?
    SIGNAL_FRESH = "SignalFresh"  # is the dispatchers' report of waiting work recent?
    DRAINING = "Draining"  # do workers finish their last tasks before they go?
    KEYS_FOUND = "KeysFound"  # are the API keys of this tenant in the Secrets that it names?
    POISONED = "Poisoned"  # have tasks of this pool been given up lately?
    CRD_OUTDATED = "CRDOutdated"  # are the cluster's custom resource definitions others than this operator's?


class Reason(StrEnum):
    """Why a condition is what it is."""

    # Accepted
    VALID = "Valid"
    INVALID = "Invalid"  # the spec breaks a rule; the message names field and rule
    NOT_FOUND = "NotFound"  # it names something that does not exist
    CONFLICT = "Conflict"  # another object has the model name or the key already
    NO_LANES = "NoLanes"  # Kafka has no topics for the pool yet
    # Ready
    SERVING = "Serving"  # enough workers are ready
    AT_ZERO = "AtZero"  # no workers because no work waits; the first task starts one
    STARTING = "Starting"  # the first workers are on their way
    NO_WORKERS = "NoWorkers"  # none is ready and none is on its way
    DELETING = "Deleting"
    PUBLISHED = "Published"  # in the snapshot that all services read
    NOT_PUBLISHED = "NotPublished"  # not in it: not accepted, or the store of snapshots is away
    # Ready: why pods of a pool do not become so
    QUOTA_EXCEEDED = "QuotaExceeded"
    OBJECT_REFUSED = "ObjectRefused"  # by the API server: the pool's Deployment, Service, budget or scale
    FIELDS_TAKEN = "FieldsTaken"  # somebody else set fields of the pool's objects; nobody overwrites that
    PODS_REFUSED = "PodsRefused"  # by admission, for another reason than a quota
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG = "ContainerConfig"  # a Secret, ConfigMap or command that is not there
    CRASH_LOOP = "CrashLoop"
    ENGINE_NOT_READY = "EngineNotReady"
    # KeysFound
    FOUND = "Found"
    # ScalingActive
    AUTOMATIC = "Automatic"
    MANUAL = "Manual"
    EXTERNAL = "External"
    PAUSED = "Paused"
    # ScalingLimited
    WITHIN_LIMITS = "WithinLimits"
    AT_MINIMUM = "AtMinimum"
    AT_MAXIMUM = "AtMaximum"
    STEP_LIMIT = "StepLimit"
    MANUAL_HOLD = "ManualHold"  # somebody scaled by hand a short while ago
    # SignalFresh
    FRESH = "Fresh"
    STALE = "Stale"  # older than 15 s: the number of workers stays
    LOST = "Lost"  # older than 60 s: Kafka's lag is a lower bound, nothing else is known
    # Draining
    WORKERS_DRAIN = "WorkersDrain"
    NOTHING_DRAINS = "NothingDrains"
    # Poisoned
    DEAD_LETTERS = "DeadLetters"
    NO_DEAD_LETTERS = "NoDeadLetters"
    # CRDOutdated
    SCHEMA_CURRENT = "SchemaCurrent"
    SCHEMA_DIFFERS = "SchemaDiffers"


class Condition(Schema, frozen=True, kw_only=True):
    """One answer of the operator about this object, as in all of Kubernetes."""

    type: Annotated[
        str,
        Meta(
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            max_length=316,
        ),
        doc("Which question is answered, for example Ready."),
    ]
    status: Annotated[Literal["True", "False", "Unknown"], doc("The answer.")]
    reason: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", min_length=1, max_length=1024),
        doc("Why, in one word that programs may compare."),
    ]
    message: Annotated[str, Meta(max_length=32_768), doc("Why, in a sentence for people.")]
    last_transition_time: Annotated[datetime, Meta(tz=True), doc("When the status changed last.")]
    observed_generation: Annotated[Generation, doc("The metadata.generation of the spec that this is said about.")] = 0
