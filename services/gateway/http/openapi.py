"""The OpenAPI 3.1 document, made from the structs that decode requests and encode answers, so that it cannot be wrong about them."""

from typing import Any, Final

import msgspec
from aiohttp import web

from services.gateway.core import messages as m
from services.gateway.core.openai import ChatRequest
from services.gateway.core.submission import SubmitFields
from services.gateway.http.native import TaskState, Ticket
from services.gateway.http.responses import json_response

_TYPES: Final = (SubmitFields, ChatRequest, TaskState, Ticket, m.Ack, m.Status, m.Delta, m.Restarted, m.Done, m.Gone)
_TASK: Final = {"name": "task", "in": "path", "required": True, "schema": {"type": "string"}}


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(summary: str, answers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"summary": summary, "responses": answers | {"default": _json(_ref("Problem"), "Any error.")}} | more


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": _ref(name)}}}


_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and body give the same task; with another body: idempotency_conflict.",
    "schema": {"type": "string"},
}
_CURSOR: Final = [
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "<gen>:<offset>, the last id that was seen.",
        "schema": {"type": "string"},
    },
    {"name": "gen", "in": "query", "schema": {"type": "string"}},
    {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0}},
]
_EVENTS: Final = {
    "description": "Server-sent events; `event` is the object's `t`, `id` the cursor after it.",
    "content": {
        "text/event-stream": {"schema": {"oneOf": [_ref(n) for n in ("Status", "Delta", "Restarted", "Done", "Gone")]}}
    },
}
_COMPLETION: Final = {
    "description": "An OpenAI chat completion; with `stream` its chunks as server-sent events and `[DONE]`.",
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": {"type": "string"}},
    },
}
_OBJECT: Final = {"type": "object"}

_PATHS: Final[dict[str, dict[str, Any]]] = {
    "/v1/tasks": {
        "post": _operation(
            "Submit a prompt; accepted once it is committed.",
            {"202": _json(_ref("TaskState"), "Accepted.")},
            parameters=[_KEY],
            requestBody=_body("SubmitFields"),
        )
    },
    "/v1/tasks/{task}": {
        "get": _operation(
            "State, position, text so far.", {"200": _json(_ref("TaskState"), "The task.")}, parameters=[_TASK]
        ),
        "delete": _operation(
            "Cancel.", {"202": _json(_ref("TaskState"), "It will end soon, or has ended.")}, parameters=[_TASK]
        ),
    },
    "/v1/tasks/{task}/stream": {
        "get": _operation("Read from a cursor to the end.", {"200": _EVENTS}, parameters=[_TASK, *_CURSOR])
    },
    "/v1/chat/completions": {
        "post": _operation(
            "OpenAI's chat completions.",
            {"200": _COMPLETION},
            parameters=[_KEY],
            requestBody=_body("ChatRequest"),
        )
    },
    "/v1/models": {"get": _operation("Models the key may use.", {"200": _json(_OBJECT, "OpenAI's list.")})},
    "/v1/models/{model}": {
        "get": _operation(
            "One model.",
            {"200": _json(_OBJECT, "OpenAI's model.")},
            parameters=[{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        )
    },
    "/v1/tickets": {
        "post": _operation("A single-use ticket for a browser.", {"201": _json(_ref("Ticket"), "The ticket.")})
    },
    "/v1/ws": {
        "get": _operation(
            "WebSocket, subprotocol millrace.v1.",
            {"101": {"description": "Upgraded."}},
            parameters=[{"name": "ticket", "in": "query", "schema": {"type": "string"}}],
        )
    },
}

_PROBLEM: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "retryable"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
                "retryable": {"type": "boolean"},
                "retry_after_s": {"type": "number"},
            },
        }
    },
}


def document() -> dict[str, Any]:
    """The whole document."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Millrace", "version": "1", "description": "One task, three transports; this is HTTP."},
        "security": [{"key": []}],
        "paths": _PATHS,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


async def _serve(_: web.Request) -> web.Response:
    return json_response(document())


def routes() -> list[web.RouteDef]:
    """`GET /openapi.json`."""
    return [web.get("/openapi.json", _serve)]
