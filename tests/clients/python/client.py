"""The official Python MCP client as a command: lists the tools of a server, calls one, and prints one JSON object.

    TOKEN=… python client.py http://127.0.0.1:8080/mcp auto acme__get_ticket '{"id": "ACME-1"}'

The token comes from the environment, because everybody can read arguments. `auto` negotiates the newest protocol version that both
sides speak; `legacy` begins with the handshake of the versions up to 2025-11-25.
"""

import asyncio
import json
import os
import sys

from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def main(url: str, mode: str, tool: str, arguments: str) -> dict:
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with create_mcp_http_client(headers=headers) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            listed = await client.list_tools()
            outcome = {"version": client.protocol_version, "tools": [entry.name for entry in listed.tools]}
            try:
                result = await client.call_tool(tool, json.loads(arguments))
                outcome["result"] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
            except MCPError as error:
                outcome["error"] = {"code": error.error.code, "message": error.error.message}
            return outcome


print(json.dumps(asyncio.run(main(*sys.argv[1:5]))))
