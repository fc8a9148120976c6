"""Is a component ready? A real call to it, never just an open port. Every probe is synchronous, short, and says no on any failure."""

import http.client
import socket
import struct

TIMEOUT_S = 1.0


def _ask(host: str, port: int, request: bytes, answer_bytes: int) -> bytes:
    """Send bytes, read some; empty when nobody answers in time."""
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(request)
            return connection.recv(answer_bytes, socket.MSG_WAITALL)
    except OSError:
        return b""


def redis_answers(host: str, port: int) -> bool:
    """PING; a server that still loads its data answers with an error."""
    return _ask(host, port, b"PING\r\n", 7) == b"+PONG\r\n"


def kafka_answers(host: str, port: int) -> bool:
    """An ApiVersions request (key 18, version 0): a KRaft broker answers it once it is registered and unfenced."""
    request = struct.pack(">ihhih", 10, 18, 0, 1, -1)
    return len(_ask(host, port, request, 4)) == 4


def http_answers(host: str, port: int, path: str) -> bool:
    """GET with status 200."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
