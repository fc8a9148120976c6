"""A Kubernetes API server of the tests' own: etcd and kube-apiserver on free loopback ports, nothing else.

No controllers and no node: objects are stored, validated and defaulted as in any cluster, but nobody acts on them. Keys,
certificates and data are made for one run, so that it meets no other cluster. `deploy/cluster` brings a whole one.
"""

import contextlib
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services.cli.stack.port_search import free_port
from services.cli.stack.software import cache_dir

START_S = 60
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class ApiServer:
    """A running API server; its kubeconfig is that of an administrator."""

    folder: Path  # of certificates, kubeconfig, data and logs
    url: str

    @property
    def kubeconfig(self) -> Path:
        """File for whoever wants to ask it."""
        return self.folder / "kubeconfig"

    def client(self) -> httpx.Client:
        """Plain requests to it, as its administrator."""
        tls = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        tls.load_cert_chain(self.folder / "client.crt", self.folder / "client.key")
        return httpx.Client(base_url=self.url, verify=tls, timeout=30)

    def kubectl(self, *arguments: str, manifest: Any = None, fails: bool | None = False) -> str:
        """Output of `kubectl`, on standard output and error together; `manifest` is what `-f -` reads.

        `fails`: whether it must, None if either is fine.
        """
        done = subprocess.run(
            [program("kubectl"), "--kubeconfig", self.kubeconfig, "--cache-dir", self.folder / "cache", *arguments],
            input=None if manifest is None else yaml.safe_dump(manifest),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=50,
        )
        assert fails is None or (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def restricted_namespace(self, name: str) -> str:
        """A namespace that holds pods to the restricted profile."""
        metadata = {"name": name, "labels": RESTRICTED}
        self.kubectl("apply", "-f", "-", manifest={"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        return name

    def get(self, *what: str) -> Any:
        """`kubectl get ... -o json`, read."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))


def program_path(name: str) -> Path:
    """Where `deploy/cluster/cluster build` puts a program."""
    home = Path(os.environ.get("MILLRACE_CLUSTER_HOME") or cache_dir() / "cluster")
    return Path(os.environ.get("MILLRACE_CLUSTER_BIN") or home / "bin") / name


def program(name: str) -> str:
    """The same, of one that must be there."""
    path = program_path(name)
    assert path.exists(), f"{name} is missing: run deploy/cluster/cluster build {name}"
    return str(path)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An empty API server, shared by the session: use names of your own."""
    with running(tmp_path_factory.mktemp("kubernetes")) as server:
        yield server


@contextlib.contextmanager
def running(folder: Path) -> Iterator[ApiServer]:
    """Start etcd and API server with everything they need in `folder`; stop them in the reverse order."""
    programs = {name: program(name) for name in ("etcd", "kube-apiserver", "kubectl")}
    _certificates(folder)
    clients = free_port()
    peers = free_port(clients + 1)
    port = free_port(peers + 1)
    with contextlib.ExitStack() as stack:
        etcd = _process(folder, programs["etcd"], *_etcd(folder, clients, peers))
        stack.callback(_stop, etcd)
        server = _process(folder, programs["kube-apiserver"], *_server(folder, clients, port))
        stack.callback(_stop, server)
        started = ApiServer(folder, f"https://127.0.0.1:{port}")
        _write_kubeconfig(started)
        _wait_ready(started, folder, etcd, server)
        yield started


def _etcd(folder: Path, clients: int, peers: int) -> list[str]:
    """Both sides prove who they are: an etcd of somebody else on this machine can not be taken for ours."""
    tls = {"cert-file": "server.crt", "key-file": "server.key", "trusted-ca-file": "ca.crt"}
    here, there = f"https://127.0.0.1:{clients}", f"https://127.0.0.1:{peers}"
    return [
        *(f"--{side}{option}={folder / file}" for side in ("", "peer-") for option, file in tls.items()),
        "--client-cert-auth", "--peer-client-cert-auth", "--unsafe-no-fsync", "--log-level=warn",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={here}", f"--advertise-client-urls={here}",
        f"--listen-peer-urls={there}", f"--initial-advertise-peer-urls={there}", f"--initial-cluster=default={there}",
    ]  # fmt: skip


def _server(folder: Path, etcd: int, port: int) -> list[str]:
    return [
        f"--etcd-servers=https://127.0.0.1:{etcd}", f"--etcd-cafile={folder / 'ca.crt'}",
        f"--etcd-certfile={folder / 'client.crt'}", f"--etcd-keyfile={folder / 'client.key'}",
        "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={port}",
        f"--tls-cert-file={folder / 'server.crt'}", f"--tls-private-key-file={folder / 'server.key'}",
        f"--client-ca-file={folder / 'ca.crt'}", "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'ca.crt'}", f"--service-account-signing-key-file={folder / 'ca.key'}",
        "--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
    ]  # fmt: skip


def _process(folder: Path, path: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """In the background, gone when this process is gone."""
    with (folder / f"{Path(path).name}.log").open("wb") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", path, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Nothing here is worth a long goodbye; the server would drain for ten seconds."""
    process.kill()
    process.wait()


def _wait_ready(server: ApiServer, folder: Path, *processes: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        dead = [Path(process.args[3]).name for process in processes if process.poll() is not None]
        assert not dead, f"{dead[0]} ended: {(folder / f'{dead[0]}.log').read_text()[-2000:]}"
        with contextlib.suppress(AssertionError):
            server.kubectl("get", "--raw=/readyz")
            server.kubectl("get", "namespace", "default")
            return
        time.sleep(0.1)
    raise AssertionError(f"the API server is not ready after {START_S} s: see {folder}")


def _certificates(folder: Path) -> None:
    """An authority of our own, a certificate for both servers, and one for whoever asks them."""
    usage = "keyUsage=critical,keyCertSign,digitalSignature"
    _openssl(folder, "req", "-x509", *NEW_KEY, "-days", "2", "-subj", "/CN=tests", "-addext", usage, *_pair("ca"))
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    for name, subject in (("server", "/CN=server"), ("client", "/O=system:masters/CN=tests")):
        extensions = ("-addext", names, "-addext", "extendedKeyUsage=serverAuth,clientAuth")
        signed = ("-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key")
        _openssl(folder, "req", "-x509", *NEW_KEY, *signed, "-subj", subject, *extensions, *_pair(name))


def _pair(name: str) -> tuple[str, ...]:
    return "-keyout", f"{name}.key", "-out", f"{name}.crt"


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _write_kubeconfig(server: ApiServer) -> None:
    folder = server.folder
    cluster = {"server": server.url, "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(folder / "client.crt"), "client-key": str(folder / "client.key")}
    server.kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "tests", "cluster": cluster}],
                "users": [{"name": "tests", "user": user}],
                "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
                "current-context": "tests",
            }
        )
    )
