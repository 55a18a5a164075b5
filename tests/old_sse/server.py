"""An MCP server in the transport of 2024-11-05, HTTP with SSE, made with the official Python SDK.

    KEY=… python server.py PORT     prints READY and the port; with 0 it takes a free one

Whoever does not show the key gets a 401.
"""

import asyncio
import hashlib
import os
import socket
import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

EXPECTED = f"Bearer {os.environ['KEY']}".encode()
server = MCPServer("old")
waiting, cancelled = asyncio.Event(), asyncio.Event()


def session_id(context):
    return context.request_context.request.query_params["session_id"]


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
async def steps(context: Context) -> str:
    """Says how far it is, three times."""
    for step in (1, 2, 3):
        await context.report_progress(step, 3)
    return "there"


@server.tool()
def session(context: Context) -> str:
    """Tells sessions apart without naming them."""
    return hashlib.sha256(session_id(context).encode()).hexdigest()


@server.tool()
def secrets(context: Context) -> list[str]:
    """Repeats what must not be repeated."""
    return [context.headers["authorization"], f"the session is {session_id(context)}"]


@server.tool()
async def wait() -> str:
    """Waits until it is cancelled."""
    waiting.set()
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()
    return "never"


@server.tool()
async def until_waiting() -> str:
    """Waits until the other one waits."""
    await waiting.wait()
    return "it happened"


@server.tool()
async def until_cancelled() -> str:
    """Waits until the other one was cancelled."""
    await cancelled.wait()
    return "it happened"


async def guarded(scope, receive, send):
    if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != EXPECTED:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await app(scope, receive, send)


app = server.sse_app()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), reuse_port=False)
print("READY", listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(guarded, log_level="error")).run(sockets=[listener])
