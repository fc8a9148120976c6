"""An installed chart, from outside: kubectl, helm, and clients of the gateway."""

import base64
import contextlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from millrace_operator.leadership import LEASE
from services.cli.stack.software import ROOT
from services.client import SyncClient
from tests.support.api_server import program

CHART = ROOT / "charts" / "millrace"
NAMESPACE = "millrace"
COMPONENTS = ("gateway", "ratelimiter", "cache", "router", "dispatcher", "operator")


def scenario(name: str) -> pytest.MarkDecorator:
    """`make e2e SCENARIO=name` runs it alone, or with others: `SCENARIO="install scale"`."""
    return pytest.mark.scenario(name)


class Installation:
    """The release `millrace` in the namespace `millrace`."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
        self.first_token_s = 0.0

    def kubectl(self, *arguments: str, manifest: Any = None, fails: bool | None = False, timeout_s: float = 120) -> str:
        """Output of kubectl in the namespace; `manifest` is what `-f -` reads."""
        done = subprocess.run(
            [program("kubectl"), "--namespace", NAMESPACE, *arguments],
            input=None if manifest is None else yaml.safe_dump(manifest),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert fails is None or (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def helm(self, *arguments: str) -> str:
        """Output of helm in the namespace, which it makes."""
        command = [program("helm"), "--namespace", NAMESPACE, *arguments]
        if arguments[0] in ("install", "upgrade"):
            command.append("--create-namespace")
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def following(self, *arguments: str, line: Callable[[str], object]) -> Iterator[None]:
        """Call `line` with each line that a kubectl which does not end by itself writes, while the block runs."""
        command = [program("kubectl"), "--namespace", NAMESPACE, *arguments]
        process = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        output = process.stdout

        def read() -> None:
            for text in output:
                line(text.strip())

        reader = threading.Thread(target=read, name="kubectl")
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            reader.join()
            output.close()

    def get(self, *what: str) -> Any:
        """`kubectl get -o json`, read."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def field(self, what: str, path: str) -> str:
        """One field, by JSONPath; empty when it is not there."""
        return self.kubectl("get", what, "-o", f"jsonpath={{{path}}}", fails=None)

    def pods(self, pool: str) -> list[dict[str, Any]]:
        """Pods of a pool that are not being deleted."""
        found = self.get("pods", "-l", f"millrace.dev/pool={pool}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    @property
    def key(self) -> str:
        """The API key of the tenant demo."""
        return base64.b64decode(self.field("secret/millrace-demo-key", ".data.key")).decode()

    @property
    def gateway(self) -> str:
        """host:port of the gateways' HTTP port, as clients on the node reach it."""
        return f"{self.field('service/millrace-gateway', '.spec.clusterIP')}:8080"

    @property
    def grpc(self) -> str:
        """The same for gRPC."""
        return f"{self.field('service/millrace-gateway', '.spec.clusterIP')}:8081"

    def client(self) -> SyncClient:
        """As the tenant demo."""
        return SyncClient(f"http://{self.gateway}", self.key)

    def ask(self, prompt: str, *, model: str = "tiny", **options: Any) -> str:
        """The whole answer, over WebSocket."""
        with self.client() as client:
            return str(client.generate(prompt, model=model, **options).text)

    def operators(self) -> set[str]:
        """Names of the operator's pods that are not being deleted."""
        there = self.get("pods", "-l", "app.kubernetes.io/component=operator")["items"]
        return {pod["metadata"]["name"] for pod in there if "deletionTimestamp" not in pod["metadata"]}

    def leader(self) -> str:
        """Name of the pod that holds the operators' lease; it may be gone."""
        return self.field(f"lease/{LEASE}", ".spec.holderIdentity")

    def operator_leads(self) -> bool:
        """Is the leader one of the operators that are there?"""
        return self.leader() in self.operators()

    def api_server(self) -> int | None:
        """Process id of the API server, where `deploy/cluster` runs it."""
        note = self._kubeconfig.parents[1] / "pid" / "kube-apiserver"
        return int(note.read_text().split()[0]) if note.exists() else None

    def restarts(self) -> dict[str, int]:
        """Of the first container of each pod of the services."""
        pods = self.get("pods", "-l", "app.kubernetes.io/instance=millrace")["items"]
        return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}

    def usage(self, pod: str) -> tuple[float, float, float]:
        """By the kubelet, which looks every 10 s or so: when it looked (s), CPU the pod took until then (s), memory (MiB)."""
        node = self.field(f"pod/{pod}", ".spec.nodeName")
        summary = json.loads(self.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
        found = next(one for one in summary["pods"] if one["podRef"]["name"] == pod)
        cpu, memory = found["cpu"], found["memory"]
        looked = datetime.fromisoformat(cpu["time"]).timestamp()
        return looked, cpu["usageCoreNanoSeconds"] / 1e9, memory["workingSetBytes"] / 2**20

    def install(self, **values: bool) -> float:
        """Install the chart with its development stores and these of its values; seconds until the first answer."""
        began = time.monotonic()
        given = [f"--set={name.replace('__', '.')}={str(value).lower()}" for name, value in values.items()]
        self.helm("upgrade", "--install", "millrace", str(CHART), "--set=dev.enabled=true", *given)
        self._wait_ready()
        return time.monotonic() - began

    def _wait_ready(self) -> None:
        for component in COMPONENTS:
            self.kubectl("rollout", "status", f"deployment/millrace-{component}", "--timeout=240s", timeout_s=250)
        self.kubectl("wait", "--for=create", "workerpool/tiny", "--timeout=120s", timeout_s=130)
        self.kubectl("wait", "--for=condition=Ready", "workerpool/tiny", "--timeout=240s", timeout_s=250)
        self.until(lambda: self.ask("hello", max_tokens=4), 60)

    def until(self, condition: Callable[[], Any], within_s: float) -> float:
        """Seconds until the condition held; what it raises counts as not yet, and is raised at the end."""
        began = time.monotonic()
        while True:
            try:
                if condition():
                    return time.monotonic() - began
                why: Exception = AssertionError(f"not within {within_s} s")
            except Exception as reason:  # noqa: BLE001 - the service may not be up
                why = reason
            if time.monotonic() - began > within_s:
                raise why
            time.sleep(0.1)

    @contextlib.contextmanager
    def evidence(self, folder: Path) -> Iterator[None]:
        """What the cluster looked like when the block failed."""
        try:
            yield
        except Exception:
            print(f"\nevidence, more in {folder}\n{self.dump(folder)}")
            raise

    def dump(self, folder: Path) -> str:
        """Nodes, pods, events, custom resources and logs, in files; the gist of it: pools, pods and the last events."""
        folder.mkdir(parents=True, exist_ok=True)
        commands = {
            "nodes": ("describe", "nodes"),
            "pools": ("get", "wp"),
            "pods": ("get", "pods", "-o", "wide"),
            "describe": ("describe", "pods"),
            "events": ("get", "events", "--sort-by=.lastTimestamp"),
            "millrace": ("get", "millrace", "-o", "yaml"),
        }
        said = {name: self.kubectl(*arguments, fails=None) for name, arguments in commands.items()}
        for name, text in said.items():
            (folder / f"{name}.txt").write_text(text)
        names = self.kubectl("get", "pods", "-o", "name", fails=None)
        for pod in re.findall(r"^pod/\S+$", names, re.MULTILINE):  # and nothing else: the API server may be away
            logs = self.kubectl("logs", pod, "--all-containers", "--tail=500", fails=None)
            (folder / f"{pod.removeprefix('pod/')}.log").write_text(logs)
        return "\n".join([said["pools"], said["pods"], *said["events"].splitlines()[-15:]])
