"""Wires the gateway: Redis, limiter, cache and router, signals, frames, gRPC, HTTP."""

import asyncio
import random
from pathlib import Path

from millrace.cache.v1.cache_pb2 import LookupReply, StoreReply
from millrace.cache.v1.cache_pb2_grpc import CacheStub
from millrace.config.v1.config_pb2 import Snapshot
from millrace.frames.v1.frames_pb2_grpc import add_FramesServicer_to_server
from millrace.inference.v1.inference_pb2_grpc import add_InferenceServicer_to_server
from millrace.limits.v1.limits_pb2 import CheckReply
from millrace.limits.v1.limits_pb2_grpc import RateLimiterStub
from millrace.router.v1.router_pb2 import AcceptReply
from millrace.router.v1.router_pb2_grpc import RouterStub

from services.chassis.batched import BatchedClient
from services.chassis.configuration import ConfigurationWatch
from services.chassis.errors import ErrorCode, Problem, ProblemError
from services.chassis.grpc_server import grpc_server
from services.chassis.lifecycle import Service, run
from services.chassis.metrics import config_age
from services.chassis.resp import RedisAwayError, Resp
from services.gateway import frames_servicer, servicer
from services.gateway.adapters.batched_call import batched_call
from services.gateway.adapters.redis_presence import RedisPresence
from services.gateway.adapters.redis_ticket_store import RedisTicketStore
from services.gateway.assembly import Gateway, World
from services.gateway.core.identity import Directory
from services.gateway.gc_policy import GcPolicy
from services.gateway.http_server import http_server
from services.gateway.settings import GatewaySettings
from services.gateway.slim_websocket import SlimServer
from services.gateway.websocket import serve_aiohttp
from services.pools.owner_lookup import OwnerLookup
from services.pools.signals_listener import SignalsListener
from services.tasklog.adapters.redis_task_control import RedisTaskControl
from services.tasklog.adapters.redis_token_log import RedisTokenLog

RECONNECT_S = 3.0  # clients of a gateway that leaves come back within this time, not all at once
