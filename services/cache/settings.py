"""Settings of the cache."""

from typing import Annotated

from services.chassis.settings import ServiceSettings, setting


class CacheSettings(ServiceSettings, frozen=True, kw_only=True):
    """What to keep and how long someone may lead."""

    port: Annotated[int, setting("Port of its batched calls; 0 = any free one.")] = 8102
    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics; 0 = any free one.")] = 9102
    redis_patience_s: Annotated[
        float, setting("After this Redis counts as away; callers take a miss after 15 ms anyway.", unit="s")
    ] = 1.0
    keep_s: Annotated[
        float, setting("How long an answer is kept when the task does not say; a day's repeated questions.", unit="s")
    ] = 86_400.0
    lead_s: Annotated[
        float,
        setting(
            "Longest time in which others join one leader. It is never renewed: a leader that died costs its followers at "
            "most this, one that takes longer costs one more engine call a minute.",
            unit="s",
        ),
    ] = 60.0
