// The official TypeScript MCP clients as a command: lists the tools of a server, calls one, and prints one JSON object.
//
//     TOKEN=… node client.mjs http://127.0.0.1:8080/mcp v2 acme__get_ticket '{"id": "ACME-1"}'
//
// `v1` is @modelcontextprotocol/sdk, which speaks the legacy era only; `v2` is @modelcontextprotocol/client, which negotiates the
// newest version that both sides speak; `v2-legacy` is the same, kept to the legacy era. The token comes from the environment,
// because everybody can read arguments.
const [url, sdk, tool, args] = process.argv.slice(2);
const requestInit = { headers: { authorization: `Bearer ${process.env.TOKEN}` } };
const info = { name: 'test', version: '1' };

async function load() {
  if (sdk === 'v1') {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    return { client: new Client(info), Transport: StreamableHTTPClientTransport };
  }
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const mode = sdk === 'v2' ? 'auto' : 'legacy';
  return { client: new Client(info, { versionNegotiation: { mode } }), Transport: StreamableHTTPClientTransport };
}

const { client, Transport } = await load();
const transport = new Transport(new URL(url), { requestInit });
await client.connect(transport);
const { tools } = await client.listTools();
const version = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
const outcome = { version, tools: tools.map((entry) => entry.name) };
try {
  outcome.result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
} catch (error) {
  outcome.error = { code: error.code, message: error.message };
}
console.log(JSON.stringify(outcome));
await client.close();
