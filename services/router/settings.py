"""Settings of the router."""

from typing import Annotated

from services.chassis.settings import ServiceSettings, setting


class RouterSettings(ServiceSettings, frozen=True, kw_only=True):
    """Routes and pools come with the configuration snapshot."""

    port: Annotated[int, setting("Port of its batched calls; 0 = any free one.")] = 8104
    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics; 0 = any free one.")] = 9104
    produce_s: Annotated[
        float,
        setting(
            "Longest wait for Kafka's commit before a submission is answered `unavailable`, deadlines aside.", unit="s"
        ),
    ] = 5.0
    redis_patience_s: Annotated[
        float, setting("After this Redis counts as away and new work is refused.", unit="s")
    ] = 2.0
    idempotency_s: Annotated[
        float, setting("How long a claim outlives the task's deadline: the window in which its key finds it.", unit="s")
    ] = 900.0
