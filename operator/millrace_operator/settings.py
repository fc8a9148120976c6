"""Settings of the operator."""

from typing import Annotated

import msgspec

from services.chassis.settings import ServiceSettings, setting


class OperatorSettings(ServiceSettings, frozen=True, kw_only=True):
    """MILLRACE_OPERATOR__*."""

    admin_port: Annotated[int, setting("Port of /healthz, /readyz and /metrics; 0 = any free one.")] = 9107
    name: Annotated[str, setting("Who this process is in the lease, the pod's name in a cluster; empty: made up.")] = ""
    namespace: Annotated[str, setting("Where its custom resources and pools live.")] = "default"
    worker_image: Annotated[str, setting("Image of the workers.")] = "localhost/millrace-worker:0.1.0"
    engine_image: Annotated[str, setting("Image of the engines of pools that name none.")] = (
        "localhost/millrace-triton:0.1.0"
    )
    image_pull_policy: Annotated[str, setting("Of both images.")] = "IfNotPresent"
    image_pull_secrets: Annotated[str, setting("Secrets with credentials of registries, comma-separated.")] = ""
    worker_service_account: Annotated[str, setting("Account of the workers' pods; it needs no permission.")] = "default"
    worker_environment: Annotated[
        str, setting("ConfigMap with what all workers need in their environment: Redis, Kafka, caches; empty: none.")
    ] = ""
    worker_checksum: Annotated[
        str,
        setting("Checksum of its content, which workers read at their start: another one replaces them; empty: none."),
    ] = ""
    worker_secret: Annotated[str, setting("Secret with more of it, for addresses with passwords; empty: none.")] = ""
    samples: Annotated[
        str, setting("Folder of manifests that are applied once, when the custom resources are served; empty: none.")
    ] = ""
    samples_ledger: Annotated[str, setting("ConfigMap that remembers which of them were.")] = "millrace-samples-applied"
    partitions: Annotated[int, setting("Partitions of a new pool's lanes."), msgspec.Meta(ge=1)] = 3
    replication: Annotated[int, setting("Copies of them: 3 where there are three brokers."), msgspec.Meta(ge=1)] = 1
