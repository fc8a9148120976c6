"""What can be turned at a dispatcher."""

from typing import Annotated

from services.chassis.settings import ServiceSettings, setting


class DispatcherSettings(ServiceSettings, frozen=True, kw_only=True):
    """Times of the lease: an owner that dies is replaced within `lease_s` + `poll_s`, which leaves time to take over in 3 s."""

    port: Annotated[int, setting("Port of Attach and Signals; 0 = any free one.")] = 8105
    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics; 0 = any free one.")] = 9105
    address: Annotated[
        str, setting("host:port under which others reach this process; empty = host and port above.")
    ] = ""
    cache_addresses: Annotated[
        str, setting("Cache services, comma-separated: flights without an answer end there.")
    ] = "127.0.0.1:8102"
    lease_s: Annotated[float, setting("How long a silent owner keeps a pool.", unit="s")] = 2.0
    renew_s: Annotated[float, setting("How often the lease is renewed: three misses are survived.", unit="s")] = 0.5
    poll_s: Annotated[float, setting("How often a standby tries for the lease.", unit="s")] = 0.1
    commit_horizon_s: Annotated[
        float, setting("Age at which Redis cannot forget an end any more: above its fsync interval of 1 s.", unit="s")
    ] = 2.0
    commit_s: Annotated[float, setting("How often offsets are committed: what a takeover reads again.", unit="s")] = 0.5
    expect_s: Annotated[
        float, setting("How long a new owner waits for the workers of tasks that had begun.", unit="s")
    ] = 1.5
    read_ahead_mib: Annotated[
        int,
        setting("Records of one pool that are read ahead, so that turns and positions see the real queue.", unit="MiB"),
    ] = 256
