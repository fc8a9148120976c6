"""Settings: one frozen struct per service, read from the environment, each field with its reason and unit.

`MILLRACE_<SERVICE>__<FIELD>` sets a field of one service, `MILLRACE_COMMON__<FIELD>` a field that all services have. The
double underscore keeps clear of the variables that Kubernetes injects. A wrong value or an unknown name stops the process
and names the variable.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec

S = TypeVar("S", bound="ServiceSettings")


class SettingsError(ValueError):
    """A variable is wrong or unknown; the message names it and the way out."""


def setting(reason: str, *, unit: str = "", secret: bool = False) -> msgspec.Meta:
    """Annotation of a field: what it turns and why its default, its unit, whether it is hidden when printed."""
    return msgspec.Meta(description=reason, extra={"unit": unit, "secret": secret})


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service has. Subclasses give `port` and `admin_port` their defaults."""

    host: Annotated[str, setting("Address to listen on; loopback, so that nothing is exposed by accident.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, setting("gRPC port; 0 = any free one.")] = 0
    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics; 0 = any free one.")] = 0
    redis_url: Annotated[str, setting("Redis that holds logs, claims and leases.", secret=True)] = (
        "redis://127.0.0.1:16379/0"
    )
    kafka_bootstrap: Annotated[str, setting("Kafka brokers, comma-separated host:port.")] = "127.0.0.1:19092"
    drain_s: Annotated[float, setting("How long running work may take to finish at a stop.", unit="s")] = 20.0
    log_level: Annotated[str, setting("DEBUG, INFO, WARNING or ERROR.")] = "INFO"


def variables(cls: type[ServiceSettings], service: str) -> dict[str, str]:
    """Environment variable to field name, the more specific ones last."""
    own, common = f"MILLRACE_{service.upper()}__", "MILLRACE_COMMON__"
    shared = {f"{common}{f.upper()}": f for f in ServiceSettings.__struct_fields__}
    return shared | {f"{own}{f.upper()}": f for f in cls.__struct_fields__}


def load(cls: type[S], service: str, environ: Mapping[str, str] | None = None) -> S:
    """Read the settings of `service`. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    known = variables(cls, service)
    for name in environ:
        if name.startswith(f"MILLRACE_{service.upper()}__") and name not in known:
            raise SettingsError(f"{name} is not a setting of {service}; it has: {', '.join(cls.__struct_fields__)}")
    values: dict[str, Any] = {}
    for variable, field in known.items():
        if variable in environ:
            try:
                values[field] = msgspec.convert(
                    environ[variable], get_type_hints(cls, include_extras=True)[field], strict=False
                )
            except msgspec.ValidationError as wrong:
                raise SettingsError(f"{variable}={environ[variable]!r}: {wrong}") from None
    return cls(**values)


def describe(settings: ServiceSettings) -> Iterator[tuple[str, str, str, str]]:
    """(field, value, unit, reason) of each field, secrets hidden."""
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        meta = next(m for m in hint.__metadata__ if m.description)  # beside it there may be bounds
        extra = meta.extra or {}
        value = "***" if extra.get("secret") and getattr(settings, name) else str(getattr(settings, name))
        yield name, value, str(extra.get("unit", "")), meta.description or ""
