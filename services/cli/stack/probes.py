"""Is a component ready? A real call to it, never just an open port.

Every probe is synchronous and short, and returns why not: the empty string means ready.
"""

import http.client
import json
import socket
import struct

from services.cli.stack.software import ROOT

HOST = "127.0.0.1"
TIMEOUT_S = 1.0
ALIVE_TIMEOUT_S = 3.0


def _ask(port: int, request: bytes, answer_bytes: int) -> bytes:
    """Send bytes, read some. Raises OSError."""
    with socket.create_connection((HOST, port), TIMEOUT_S) as connection:
        connection.sendall(request)
        return connection.recv(answer_bytes, socket.MSG_WAITALL)


def redis_answers(port: int) -> str:
    """PING; a server that still loads its data answers with an error."""
    try:
        answer = _ask(port, b"PING\r\n", 7)
    except OSError as reason:
        return str(reason)
    return "" if answer == b"+PONG\r\n" else answer.decode(errors="replace")


def kafka_answers(port: int) -> str:
    """An ApiVersions request (key 18, version 0): a KRaft broker answers it once it is registered and unfenced."""
    try:
        answer = _ask(port, struct.pack(">ihhih", 10, 18, 0, 1, -1), 4)
    except OSError as reason:
        return str(reason)
    return "" if len(answer) == 4 else "closes the connection"


def http_answers(port: int, path: str) -> str:
    """GET with status 200. A service's `/readyz` says in JSON which of its checks fail; those are the reason."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as reason:
        return str(reason) or type(reason).__name__
    finally:
        connection.close()
    if response.status == 200:
        return ""
    try:
        return "waits for " + ", ".join(name for name, holds in json.loads(body).items() if not holds)
    except (ValueError, AttributeError):
        return f"status {response.status}"


def triton_models_answer(port: int) -> str:
    """Every model's own process answers: Triton calls itself ready when one is dead. Cancels a request that does not exist."""
    body = json.dumps({"text_input": "", "id": "probe", "stop": True})
    for model in sorted(p.name for p in (ROOT / "deploy/triton/model_repository").iterdir() if p.is_dir()):
        connection = http.client.HTTPConnection(HOST, port, timeout=ALIVE_TIMEOUT_S)
        try:
            connection.request("POST", f"/v2/models/{model}/generate", body)
            answer = connection.getresponse().read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as reason:
            answer = str(reason) or type(reason).__name__
        finally:
            connection.close()
        if "cancelled by client" not in answer:
            return f"model {model}: {answer.strip()}"
    return ""


def probe(spec: str, ports: dict[str, int]) -> str:
    """Carry out the `ready` or `alive` of a component, for example `http admin /readyz`."""
    match spec.split():
        case ["running"]:
            return ""
        case ["redis", port]:
            return redis_answers(ports[port])
        case ["kafka", port]:
            return kafka_answers(ports[port])
        case ["http", port, path]:
            return http_answers(ports[port], path)
        case ["triton", port]:
            return triton_models_answer(ports[port])
    raise ValueError(f"no probe is called {spec!r}")
