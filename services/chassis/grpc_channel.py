"""Outgoing gRPC connections."""

import grpc.aio

OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A service that restarts is found again in well under a second; the default would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Without this, channels to one address share a connection and its fate.
    ("grpc.use_local_subchannel_pool", 1),
]


def channel(address: str) -> grpc.aio.Channel:
    """An insecure channel to `host:port`, made for connections inside the platform."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)
