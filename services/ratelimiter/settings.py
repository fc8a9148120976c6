"""Settings of the rate limiter."""

from typing import Annotated

from services.chassis.settings import ServiceSettings, setting


class RateLimiterSettings(ServiceSettings, frozen=True, kw_only=True):
    """Limits themselves come with each request; nothing of them is set here."""

    port: Annotated[int, setting("Port of its batched calls; 0 = any free one.")] = 8101
    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics; 0 = any free one.")] = 9101
    redis_patience_s: Annotated[
        float,
        setting(
            "After this Redis counts as away; gateways wait 100 ms for a verdict and then limit by themselves.",
            unit="s",
        ),
    ] = 1.0
