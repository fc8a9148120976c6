"""Settings of the worker."""

from typing import Annotated, Literal

from services.chassis.settings import ServiceSettings, setting


class WorkerSettings(ServiceSettings, frozen=True, kw_only=True):
    """Model, slots and assets come with the configuration snapshot, from the pool."""

    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics; 0 = any free one.")] = 9106
    name: Annotated[str, setting("Stable name in the pool, the pod's in a cluster; a restart keeps it.")] = "worker-1"
    pool: Annotated[str, setting("The WorkerPool it belongs to.")] = "tiny"
    engine: Annotated[
        Literal["triton", "simulator"], setting("What makes the text; the simulator is for load and fault tests.")
    ] = "triton"
    triton_address: Annotated[str, setting("host:port of Triton's gRPC.")] = "127.0.0.1:18001"
    assets: Annotated[
        str, setting("Folder with the model's tokenizer and chat template; empty = the one the pool names.")
    ] = ""
    slots: Annotated[int, setting("Tasks run at once; 0 = as the pool says.")] = 0
    cache_addresses: Annotated[
        str, setting("Cache services, comma-separated host:port; empty = answers are not stored.")
    ] = "127.0.0.1:8102"
    tick_ms: Annotated[
        float, setting("How long text gathers before it is logged and sent while the loop has time.", unit="ms")
    ] = 10.0
    tick_max_ms: Annotated[
        float, setting("The same while the loop is above 60 % busy: fewer and larger writes.", unit="ms")
    ] = 50.0
    first_token_s: Annotated[
        float,
        setting("Silence of the engine before the first token that counts as a stall; prefill included.", unit="s"),
    ] = 30.0
    stall_s: Annotated[
        float,
        setting("Silence between two tokens that counts as a stall; a dead model process hangs silently.", unit="s"),
    ] = 5.0
    simulator_tokens_per_s: Annotated[float, setting("Pace of one simulated stream.", unit="tokens/s")] = 50.0
    simulator_prefill_tokens_per_s: Annotated[
        float, setting("Simulated reading of what the prefix cache does not hold.", unit="tokens/s")
    ] = 20_000.0
    simulator_slowdown: Annotated[
        float, setting("The n-th simulated stream at once runs at 1 / (1 + slowdown * (n - 1)) of the pace.")
    ] = 0.0
    heartbeat_s: Annotated[
        float, setting("The dispatcher gives the tasks of a worker that missed three to others.", unit="s")
    ] = 1.0
