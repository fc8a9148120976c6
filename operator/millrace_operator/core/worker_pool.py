"""WorkerPool: workers of one model on one kind of accelerator, how many of them, and how they come and go."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from millrace_operator.core.declare import (
    Amount,
    Column,
    Count,
    CustomResource,
    Folder,
    Generation,
    Image,
    Metadata,
    ModelName,
    ObjectName,
    Port,
    Positive,
    Quantity,
    Rule,
    Schema,
    Tokens,
    doc,
    keyed,
)
from millrace_operator.core.reasons import Condition

Seconds = Annotated[int, Meta(ge=0, le=86_400)]
Replicas = Annotated[int, Meta(ge=0, le=1000)]
ResourceMap = Annotated[dict[str, Quantity], Meta(max_length=16)]
StringMap = Annotated[dict[str, Annotated[str, Meta(max_length=4096)]], Meta(max_length=32)]
LabelMap = Annotated[dict[str, Annotated[str, Meta(max_length=63)]], Meta(max_length=32)]


# -- what runs ----------------------------------------------------------------------------------------------------------


class Model(Schema, frozen=True, kw_only=True):
    """What the engine runs."""

    name: Annotated[
        ModelName,
        doc(
            "The engine's own name of the model, as it stands in Triton's repository. Clients use the name of the"
            " ModelRoute. It changes only while spec.scaling.mode is Paused."
        ),
    ]
    revision: Annotated[
        str,
        Meta(max_length=128),
        doc(
            "Change it whenever the weights change: it is part of the key of cached answers, so those of the old"
            " weights are not found any more."
        ),
    ] = "1"
    assets: Annotated[
        str,
        Meta(max_length=512),
        doc(
            "Folder with the model's tokenizer and chat template, as the worker sees it. The volume of"
            " spec.engine.triton.modelRepository is mounted in the worker at the same path as in the engine. Absent:"
            " the worker's own setting says where."
        ),
    ] = ""
    context_tokens: Annotated[
        Tokens,
        doc(
            "Tokens that the engine holds of prompt and completion together; tokens.max of every route here is below it."
        ),
    ] = 2048


class Resources(Schema, frozen=True, kw_only=True):
    """Requests and limits of one container, as in a Pod."""

    requests: Annotated[
        ResourceMap,
        doc("What the scheduler sets aside, by resource name: cpu, memory, ephemeral-storage. 500m, not 0.5."),
    ] = field(default_factory=dict)
    limits: Annotated[
        ResourceMap,
        doc("What the container never exceeds. Accelerators belong to spec.accelerator, which sets both."),
    ] = field(default_factory=dict)


class ModelRepository(Schema, frozen=True, kw_only=True):
    """Where Triton finds its models. Neither volume: they are part of the image, below the path."""

    rules: ClassVar = (
        Rule(
            "!(has(self.persistentVolumeClaim) && has(self.hostPath))",
            "persistentVolumeClaim and hostPath are both set: keep one of them",
            ".hostPath",
            lambda s: s.persistent_volume_claim is None or s.host_path is None,
        ),
    )

    path: Annotated[Folder, doc("Folder of the model repository inside the containers.")] = "/models"
    persistent_volume_claim: Annotated[
        ObjectName | None,
        doc("PersistentVolumeClaim in the pool's namespace, mounted read-only at the path."),
    ] = None
    host_path: Annotated[
        Folder | None,
        doc(
            "Folder of the node, mounted read-only at the path. For test clusters: namespaces with restricted pod"
            " security refuse it."
        ),
    ] = None


class Triton(Schema, frozen=True, kw_only=True):
    """A Triton Inference Server in a container beside the worker."""

    rules: ClassVar = (
        Rule(
            "self.grpcPort != self.httpPort && self.grpcPort != self.metricsPort && self.httpPort != self.metricsPort",
            "grpcPort, httpPort and metricsPort must be three different ports: change one",
            ".grpcPort",
            lambda s: len({s.grpc_port, s.http_port, s.metrics_port}) == 3,
        ),
    )

    image: Annotated[
        Image | None,
        doc("Image of the server. Absent: the one that the operator was installed with."),
    ] = None
    model_repository: Annotated[ModelRepository, doc("Where the server finds its models.")] = ModelRepository()
    grpc_port: Annotated[Port, doc("Port on which the worker reaches the server.")] = 8001
    http_port: Annotated[Port, doc("Port of the health probes.")] = 8000
    metrics_port: Annotated[Port, doc("Port of the server's Prometheus metrics.")] = 8002
    shared_memory: Annotated[
        Quantity,
        doc(
            "Size of /dev/shm, a quantity such as 1Gi; it counts against the container's memory. Models with a Python"
            " part and several GPUs that work together need more."
        ),
    ] = "256Mi"


class Simulator(Schema, frozen=True, kw_only=True):
    """Text at a given pace, without model and without accelerator. Its text says nothing."""

    tokens_per_second: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)],
        doc("Pace of one stream that is alone in its worker, in tokens per second."),
    ] = 50.0
    prefill_tokens_per_second: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)],
        doc("Pace of reading those prompt tokens that the simulated prefix cache does not hold."),
    ] = 20_000.0
    slowdown: Annotated[
        Annotated[float, Meta(ge=0, le=10)],
        doc("How streams of one worker hinder each other: the n-th runs at 1 / (1 + slowdown * (n - 1)) of the pace."),
    ] = 0.0


class Engine(Schema, frozen=True, kw_only=True):
    """What makes the text in each worker's pod."""

    rules: ClassVar = (
        Rule(
            "self.kind == 'Triton' || !has(self.triton)",
            "triton is set but kind is not Triton: remove triton or change kind",
            ".triton",
            lambda s: s.kind == "Triton" or s.triton is None,
        ),
        Rule(
            "self.kind == 'Simulator' || !has(self.simulator)",
            "simulator is set but kind is not Simulator: remove simulator or change kind",
            ".simulator",
            lambda s: s.kind == "Simulator" or s.simulator is None,
        ),
    )

    kind: Annotated[
        Literal["Triton", "Simulator"],
        doc(
            "Triton runs a Triton Inference Server beside the worker. Simulator is built into the worker and makes"
            " paced nonsense, for load and fault tests. It changes only while spec.scaling.mode is Paused."
        ),
    ] = "Triton"
    triton: Annotated[Triton | None, doc("The server, with kind Triton. Absent: all its defaults.")] = None
    simulator: Annotated[Simulator | None, doc("The pace, with kind Simulator. Absent: all its defaults.")] = None
    resources: Annotated[Resources, doc("Requests and limits of the engine's container; Simulator has none.")] = (
        Resources()
    )
    first_token_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=3600)],
        doc(
            "Silence before the first token, reading of the prompt included, after which the engine counts as stalled"
            " and the task continues on another worker."
        ),
    ] = 30.0
    stall_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=3600)],
        doc("The same between two tokens. An engine whose process died says nothing, so this is how it is found out."),
    ] = 5.0


class Worker(Schema, frozen=True, kw_only=True):
    """The container that takes tasks and drives the engine."""

    resources: Annotated[Resources, doc("Requests and limits of the worker's container.")] = Resources()


class Accelerator(Schema, frozen=True, kw_only=True):
    """What the engine's container needs beside processor and memory."""

    resource: Annotated[
        str,
        Meta(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=316),
        doc(
            "Resource name that a device plugin offers. Never a time-sliced one: an engine needs its memory for itself."
        ),
    ] = "nvidia.com/gpu"
    count: Annotated[Annotated[int, Meta(ge=1, le=64)], doc("How many of them for each worker.")] = 1
    product: (
        Annotated[
            str,
            Meta(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63),
            doc(
                "Only nodes whose label <resource>.product has this value, for example NVIDIA-H100-80GB-HBM3. Absent: any."
            ),
        ]
        | None
    ) = None


class Concurrency(Schema, frozen=True, kw_only=True):
    """How much one worker takes."""

    slots: Annotated[
        Annotated[int, Meta(ge=1, le=4096)],
        doc("Tasks that one worker runs at once. More than the engine's largest batch only moves the queue into it."),
    ] = 8


class Queue(Schema, frozen=True, kw_only=True):
    """How much may wait."""

    max_seconds: Annotated[
        Positive,
        doc(
            "Seconds of waiting work for each slot above which new tasks below class critical are refused, those of the"
            " tenants that wait for more than their share first; the refusal says when to come back."
        ),
    ] = 30.0


class Poison(Schema, frozen=True, kw_only=True):
    """When a task is given up."""

    max_attempts: Annotated[
        Annotated[int, Meta(ge=1, le=20)],
        doc("Failed attempts after which a task goes to the dead letters. An engine that is away costs no attempt."),
    ] = 3


# -- how many -----------------------------------------------------------------------------------------------------------


class Hold(Schema, frozen=True, kw_only=True):
    """How long workers are kept after the work for them has gone."""

    rules: ClassVar = (
        Rule(
            "(self.mode == 'Fixed') == has(self.seconds)",
            "seconds goes with mode Fixed and only with it: set both or neither",
            ".seconds",
            lambda s: (s.mode == "Fixed") == (s.seconds is not None),
        ),
        Rule(
            "self.minSeconds <= self.maxSeconds",
            "minSeconds is above maxSeconds: lower it or raise maxSeconds",
            ".minSeconds",
            lambda s: s.min_seconds <= s.max_seconds,
        ),
    )

    mode: Annotated[
        Literal["Learned", "Fixed"],
        doc(
            "Learned weighs idle workers against cold starts from how soon work came back before. Fixed always waits"
            " the same time."
        ),
    ] = "Learned"
    seconds: Annotated[Seconds | None, doc("The time with mode Fixed, and only there.")] = None
    min_seconds: Annotated[Seconds, doc("The shortest time that may be learned.")] = 60
    max_seconds: Annotated[Seconds, doc("The longest time that may be learned.")] = 1200


class StepLimits(Schema, frozen=True, kw_only=True):
    """How fast the pool may grow."""

    max_up: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        doc("Workers that may be added in one period. What is held back makes the condition ScalingLimited."),
    ] = 8
    period_seconds: Annotated[Annotated[int, Meta(ge=1, le=3600)], doc("Length of the period.")] = 30


class Scaling(Schema, frozen=True, kw_only=True):
    """Who chooses the number of workers, and within which bounds."""

    rules: ClassVar = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is above maxReplicas: lower it or raise maxReplicas",
            ".minReplicas",
            lambda s: s.min_replicas <= s.max_replicas,
        ),
    )

    mode: Annotated[
        Literal["Auto", "Manual", "External", "Paused"],
        doc(
            "Auto: the operator follows the waiting work and writes spec.replicas. Manual: spec.replicas is what you"
            " write. External: something else writes the scale subresource (a HorizontalPodAutoscaler, KEDA) and the"
            " operator only carries it out. Paused: the operator changes nothing, neither the number of workers nor"
            " their pods; it goes on reporting."
        ),
    ] = "Auto"
    min_replicas: Annotated[
        Replicas,
        doc(
            "The least workers in mode Auto. 0 lets an idle pool go to zero; the first task after that waits for a cold"
            " start."
        ),
    ] = 1
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        doc(
            "The most workers in any mode; spec.replicas cannot be raised above it. While the work asks for more, the"
            " condition ScalingLimited says so. Lowered below the present number, mode Auto drains down to it."
        ),
    ] = 10
    headroom: Annotated[
        Annotated[float, Meta(ge=0.1, le=1)],
        doc("Share of the slots that should be busy in mode Auto. Lower is calmer under bursts and costs more."),
    ] = 0.75
    idle_seconds: Annotated[
        Seconds, doc("How long nothing may have waited or run before the last worker goes, with minReplicas 0.")
    ] = 600
    hold: Annotated[Hold, doc("How long workers are kept after the work for them has gone, in mode Auto.")] = Hold()
    manual_hold_seconds: Annotated[
        Seconds,
        doc(
            "How long a number that somebody set by hand (kubectl scale) is the least in mode Auto. 0: not at all, the"
            " next decision replaces it."
        ),
    ] = 600
    step_limits: Annotated[StepLimits, doc("How fast the pool may grow in mode Auto.")] = StepLimits()


class Slo(Schema, frozen=True, kw_only=True):
    """What waiting is fine."""

    queue_wait_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)],
        doc("Seconds that a task may wait for a slot. Mode Auto orders workers so that the backlog is gone within it."),
    ] = 5.0


class Drain(Schema, frozen=True, kw_only=True):
    """How workers leave."""

    deadline_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=85_000)],
        doc(
            "How long a leaving worker may go on with the tasks it has; it takes no new ones. What is not done by then"
            " continues on another worker without losing text. At most"
            " spec.template.terminationGracePeriodSeconds - 30."
        ),
    ] = 300


# -- where --------------------------------------------------------------------------------------------------------------


class Toleration(Schema, frozen=True, kw_only=True):
    """A taint of nodes that the pods accept, as in a Pod."""

    rules: ClassVar = (
        Rule(
            "self.operator == 'Equal' || !has(self.value)",
            "value has no meaning with operator Exists: remove it or use Equal",
            ".value",
            lambda s: s.operator == "Equal" or s.value is None,
        ),
        Rule(
            "self.operator == 'Exists' || has(self.key)",
            "key is needed with operator Equal: set it, or use Exists for all taints",
            ".key",
            lambda s: s.operator == "Exists" or s.key is not None,
        ),
    )

    key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=316)] | None, doc("Key of the taint. Absent: all keys.")
    ] = None
    operator: Annotated[Literal["Exists", "Equal"], doc("How the taint's value is compared.")] = "Equal"
    value: Annotated[Annotated[str, Meta(max_length=63)] | None, doc("Value of the taint, with operator Equal.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None, doc("Effect of the taint. Absent: all effects.")
    ] = None
    toleration_seconds: Annotated[
        Count | None, doc("How long a taint with effect NoExecute is borne. Absent: for ever.")
    ] = None


class PullSecret(Schema, frozen=True, kw_only=True):
    """A Secret with credentials of an image registry."""

    name: Annotated[ObjectName, doc("Name of the Secret in the pool's namespace.")]


class Template(Schema, frozen=True, kw_only=True):
    """What the pods of the workers have beyond what the operator gives them."""

    rules: ClassVar = (
        Rule(
            "!has(self.labels)"
            " || self.labels.all(k, !k.startsWith('millrace.dev/') && !k.startsWith('app.kubernetes.io/'))",
            "labels below millrace.dev/ and app.kubernetes.io/ are the operator's: use a prefix of your own",
            ".labels",
            lambda s: not any(key.startswith(("millrace.dev/", "app.kubernetes.io/")) for key in s.labels),
        ),
        Rule(
            "!has(self.annotations) || self.annotations.all(k, !k.startsWith('millrace.dev/'))",
            "annotations below millrace.dev/ are the operator's: use a prefix of your own",
            ".annotations",
            lambda s: not any(key.startswith("millrace.dev/") for key in s.annotations),
        ),
    )

    labels: Annotated[
        LabelMap, doc("Labels of the pods, beside those of the operator below millrace.dev/ and app.kubernetes.io/.")
    ] = field(default_factory=dict)
    annotations: Annotated[StringMap, doc("Annotations of the pods.")] = field(default_factory=dict)
    node_selector: Annotated[LabelMap, doc("Labels that a node must have.")] = field(default_factory=dict)
    tolerations: Annotated[
        tuple[Toleration, ...], Meta(max_length=16), doc("Taints of nodes that the pods accept.")
    ] = ()
    priority_class_name: Annotated[
        ObjectName | None, doc("PriorityClass of the pods. Absent: the cluster's default.")
    ] = None
    image_pull_secrets: Annotated[
        tuple[PullSecret, ...], Meta(max_length=8), keyed("name"), doc("Secrets with credentials of image registries.")
    ] = ()
    termination_grace_period_seconds: Annotated[
        Annotated[int, Meta(ge=30, le=86_400)],
        doc(
            "How long Kubernetes waits for a pod that has to go: a node that is drained, a roll-out. As long as the"
            " longest answer takes (p99.9) and 30 s more."
        ),
    ] = 330


# -- the kind -----------------------------------------------------------------------------------------------------------


class WorkerPoolSpec(Schema, frozen=True, kw_only=True):
    """What the pool should be."""

    rules: ClassVar = (
        Rule(
            "self.replicas <= self.scaling.maxReplicas"
            " || (oldSelf.hasValue() && self.replicas <= oldSelf.value().replicas)",
            "replicas is above scaling.maxReplicas: order fewer or raise scaling.maxReplicas",
            ".replicas",
            first_too=True,  # only raising is refused: lowering the maximum of a pool that is larger must be possible
        ),
        Rule(
            "self.model.name == oldSelf.model.name || oldSelf.scaling.mode == 'Paused'",
            "model.name is fixed while the pool serves: set scaling.mode to Paused first, or make a new WorkerPool and"
            " shift the weights of the ModelRoute",
            ".model.name",
        ),
        Rule(
            "self.engine.kind == oldSelf.engine.kind || oldSelf.scaling.mode == 'Paused'",
            "engine.kind is fixed while the pool serves: set scaling.mode to Paused first, or make a new WorkerPool and"
            " shift the weights of the ModelRoute",
            ".engine.kind",
        ),
        Rule(
            "self.drain.deadlineSeconds <= self.template.terminationGracePeriodSeconds - 30",
            "drain.deadlineSeconds is above template.terminationGracePeriodSeconds - 30: lower it or raise"
            " terminationGracePeriodSeconds, or Kubernetes would kill workers that still drain",
            ".drain.deadlineSeconds",
            lambda s: s.drain.deadline_seconds <= s.template.termination_grace_period_seconds - 30,
        ),
        Rule(
            "self.engine.kind != 'Simulator' || !has(self.accelerator)",
            "accelerator is set but engine.kind Simulator uses none: remove accelerator",
            ".accelerator",
            lambda s: s.engine.kind != "Simulator" or s.accelerator is None,
        ),
    )

    model: Annotated[Model, doc("What the engine of each worker runs.")]
    replicas: Annotated[
        Replicas,
        doc(
            "How many workers the pool should have. Mode Auto writes it, so leave it out of manifests there; kubectl"
            " scale sets it. Never above spec.scaling.maxReplicas."
        ),
    ] = 1
    scaling: Annotated[Scaling, doc("Who chooses the number of workers, and within which bounds.")] = Scaling()
    slo: Annotated[Slo, doc("What waiting is fine; mode Auto scales for it.")] = Slo()
    concurrency: Annotated[Concurrency, doc("How much one worker takes.")] = Concurrency()
    queue: Annotated[Queue, doc("How much may wait before new work is refused.")] = Queue()
    poison: Annotated[Poison, doc("When a task is given up.")] = Poison()
    drain: Annotated[Drain, doc("How workers leave without losing what they do.")] = Drain()
    engine: Annotated[Engine, doc("What makes the text in each worker's pod.")] = Engine()
    worker: Annotated[Worker, doc("The container that takes tasks and drives the engine.")] = Worker()
    accelerator: Annotated[
        Accelerator | None,
        doc("What the engine's container needs beside processor and memory. Absent: the engine runs on processors."),
    ] = None
    template: Annotated[Template, doc("What the pods of the workers have beyond what the operator gives them.")] = (
        Template()
    )


class QueueStatus(Schema, frozen=True, kw_only=True):
    """What waits and runs, as the dispatcher reports it."""

    waiting_work_seconds: Annotated[Amount, doc("Estimated seconds of one slot that all waiting tasks need.")] = 0.0
    waiting_requests: Annotated[Count, doc("Tasks that wait.")] = 0
    in_flight: Annotated[Count, doc("Tasks that run.")] = 0


class RatesStatus(Schema, frozen=True, kw_only=True):
    """How much comes and how long it takes."""

    arrival_per_second: Annotated[Amount, doc("Tasks that came per second, over the last minute.")] = 0.0
    service_seconds: Annotated[Amount, doc("Mean seconds that a task keeps its slot, learned from finished ones.")] = (
        0.0
    )


class ColdStartStatus(Schema, frozen=True, kw_only=True):
    """How long a new worker takes from its order to its first task."""

    p80_seconds: Annotated[
        Amount, doc("The time within which four of five are ready, learned; mode Auto looks this far ahead.")
    ] = 0.0
    last_seconds: Annotated[Amount, doc("What the last one took.")] = 0.0


class DecisionStatus(Schema, frozen=True, kw_only=True):
    """The last change of the number of workers, in the same words as its Event."""

    time: Annotated[datetime, Meta(tz=True), doc("When it was decided.")]
    from_: Annotated[Count, doc("Workers before.")] = field(name="from")
    to: Annotated[Count, doc("Workers after.")]
    reason: Annotated[str, Meta(max_length=64), doc("Why, in one word.")]
    message: Annotated[
        str,
        Meta(max_length=1024),
        doc(
            "Why, in one sentence with its numbers, for example: 2 -> 4: 300 s of work wait for 2 pods of 8 slots; wanted"
            " within 5 s."
        ),
    ]
    bound: Annotated[
        str,
        Meta(max_length=64),
        doc(
            "What held the number, if anything did: minReplicas, maxReplicas, stepLimits, hold, confirmation, idleSeconds,"
            " manualHold, signal or mode."
        ),
    ] = ""


class WorkerPoolStatus(Schema, frozen=True, kw_only=True):
    """What the operator sees. Nothing reads it as input."""

    observed_generation: Annotated[
        Generation, doc("The metadata.generation of the spec that this status is about.")
    ] = 0
    replicas: Annotated[Count, doc("Pods that exist: ready, starting and draining.")] = 0
    ready_replicas: Annotated[Count, doc("Workers that take tasks.")] = 0
    starting_replicas: Annotated[Count, doc("Workers that are ordered and not ready yet.")] = 0
    draining_replicas: Annotated[Count, doc("Workers that finish their last tasks and then go.")] = 0
    desired_replicas: Annotated[Count, doc("Workers that the pool should have now, within its bounds.")] = 0
    selector: Annotated[
        str,
        Meta(max_length=1024),
        doc("Label selector of the pool's pods; autoscalers read it by the scale subresource."),
    ] = ""
    queue: Annotated[QueueStatus | None, doc("What waits and runs, as the dispatcher reports it.")] = None
    rates: Annotated[RatesStatus | None, doc("How much comes and how long it takes.")] = None
    cold_start: Annotated[
        ColdStartStatus | None, doc("How long a new worker takes from its order to its first task.")
    ] = None
    last_decision: Annotated[
        DecisionStatus | None, doc("The last change of the number of workers, in the same words as its Event.")
    ] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(max_length=16),
        keyed("type"),
        doc(
            "Accepted: the spec is right. Ready: workers take tasks, or the pool is at zero and would start one."
            " ScalingActive: the operator chooses their number. ScalingLimited: a bound keeps it from the number that"
            " the work asks for. SignalFresh: the report of waiting work is recent. Draining: workers finish their last"
            " tasks. Poisoned: tasks were given up lately. CRDOutdated: the cluster's custom resource definitions are"
            " others than those that the operator was built with."
        ),
    ] = ()


class WorkerPool(CustomResource, frozen=True, kw_only=True, tag="WorkerPool"):
    """Workers of one model on one kind of accelerator.

    The operator runs a Deployment for it, scales it with the work that waits (spec.scaling), and lets workers finish
    what they do before they go (spec.drain). ModelRoutes send tasks to it by its name. When it is deleted
    they send no more, what waits is worked off for at most ten minutes, and then its workers drain.
    """

    plural: ClassVar = "workerpools"
    short_name: ClassVar = "wp"
    has_scale: ClassVar = True
    columns: ClassVar = (
        Column("Model", ".spec.model.name", "string", "What the engine runs."),
        Column("Desired", ".status.desiredReplicas", "integer", "Workers that the pool should have."),
        Column("Ready", ".status.readyReplicas", "integer", "Workers that take tasks."),
        Column("Start", ".status.startingReplicas", "integer", "Workers on their way."),
        Column("Drain", ".status.drainingReplicas", "integer", "Workers that finish and go."),
        Column("Backlog(s)", ".status.queue.waitingWorkSeconds", "number", "Seconds of one slot that wait."),
        Column("Status", '.status.conditions[?(@.type=="Ready")].reason', "string", "Reason of the condition Ready."),
        Column("Age", ".metadata.creationTimestamp", "date", "Time since it was made."),
        Column("Rate", ".status.rates.arrivalPerSecond", "number", "Tasks that come per second.", wide=True),
        Column("Cold(s)", ".status.coldStart.p80Seconds", "number", "Seconds until a new worker is ready.", wide=True),
    )
    rules: ClassVar = (
        Rule(
            "size(self.metadata.name) <= 40",
            "metadata.name has more than 40 characters: choose a shorter one, the names of pods, Services and topics"
            " are made of it",
            ".metadata.name",
            lambda s: len(s.metadata.name) <= 40,
        ),
    )

    api_version: Literal["millrace.dev/v1alpha1"]
    metadata: Metadata
    spec: Annotated[WorkerPoolSpec, doc("What the pool should be.")]
    status: Annotated[
        WorkerPoolStatus | None, doc("What the operator sees. A manifest that brings one along changes nothing.")
    ] = None
