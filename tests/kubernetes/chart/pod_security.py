"""Pod Security Standards, profile restricted, as of Kubernetes 1.34: what a pod may not have.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
SECCOMP = {"RuntimeDefault", "Localhost"}
APPARMOR = {None, "RuntimeDefault", "Localhost"}
SELINUX = {None, "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def flaws(pod: dict[str, Any]) -> list[str]:
    """Everything in a pod's spec that the profile forbids.

    >>> flaws({"hostNetwork": True, "containers": []})
    ['hostNetwork']
    """
    return [
        *_of_pod(pod),
        *(flaw for kind in _KINDS for each in pod.get(kind, []) for flaw in _of_container(pod, each)),
    ]


_KINDS = ("initContainers", "containers", "ephemeralContainers")


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    context = pod.get("securityContext", {})
    for volume in pod.get("volumes", []):
        if not VOLUMES & volume.keys():
            yield f"volume {volume['name']}"
    yield from (f"sysctl {each['name']}" for each in context.get("sysctls", []) if each["name"] not in SYSCTLS)
    yield from _of_context("pod", context)


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    name = container["name"]
    context = container.get("securityContext", {})
    whole = pod.get("securityContext", {})
    yield from _of_context(name, context)
    if context.get("privileged"):
        yield f"{name}: privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if context.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities"
    if context.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot"
    if context.get("seccompProfile", whole.get("seccompProfile", {})).get("type") not in SECCOMP:
        yield f"{name}: seccompProfile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name}: hostPort"
    probes = [container.get(probe, {}) for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    hooks = list(container.get("lifecycle", {}).values())
    for way in ("httpGet", "tcpSocket"):
        if any(each.get(way, {}).get("host") for each in [*probes, *hooks]):
            yield f"{name}: host of a probe"


def _of_context(name: str, context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{name}: runAsUser"
    if (
        context.get("seLinuxOptions", {}).get("type") not in SELINUX
        or {"user", "role"} & context.get("seLinuxOptions", {}).keys()
    ):
        yield f"{name}: seLinuxOptions"
    if context.get("appArmorProfile", {}).get("type") not in APPARMOR:
        yield f"{name}: appArmorProfile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name}: hostProcess"
