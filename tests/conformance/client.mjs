// What the suite runs as the client under test. It hands the suite's server on to the test at the first argument, which drives mcp-mux
// in front of it, and ends when that is done.
const [driver, url] = process.argv.slice(2);
const { MCP_CONFORMANCE_CONTEXT: context = "{}" } = process.env;
const body = JSON.stringify({ url, context: JSON.parse(context) });
const answer = await fetch(driver, { method: "POST", headers: { "content-type": "application/json" }, body });
if (!answer.ok) {
  console.error(await answer.text());
  process.exit(1);
}
