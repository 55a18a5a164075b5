"""An MCP server over stdin and stdout made with the official Python SDK, which speaks the modern era."""

import asyncio

from mcp.server.mcpserver import MCPServer

server = MCPServer("modern")
waiting, cancelled = asyncio.Event(), asyncio.Event()


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


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


server.run()
