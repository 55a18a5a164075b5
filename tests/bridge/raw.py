"""An MCP server over stdin and stdout that says exactly what a test of the bridge needs. Only Python's own library.

    python raw.py [FILE]        appends a line to FILE for each start, so that a test can count them
"""

import json
import os
import subprocess
import sys
import threading

WAITING = []
CANCELLED = []
ASKED = {}
BYTES = '{ "x" : 1.50, "content":[{"type":"video","u":"\\u00e4\\/"}],"big":123456789012345678901234567890,"_meta":{"k":[ ]} }'
LOCK = threading.Lock()


def say(text):
    with LOCK:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def answer(id, result):
    # The id stands last, as some servers write it.
    say('{"result":%s,"jsonrpc":"2.0","id":%s}' % (result, json.dumps(id)))


def text(id, words):
    answer(id, json.dumps({"content": [{"type": "text", "text": words}]}))


def initialize(id, params):
    info = {"name": "raw", "version": "1", "futureField": 1.0}
    answer(id, json.dumps({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}))


def call(id, params, line):
    name, arguments = params["name"], params.get("arguments", {})
    token = params.get("_meta", {}).get("progressToken")
    if name == "bytes":
        answer(id, BYTES)
    elif name == "line":
        text(id, line)
    elif name == "env":
        text(id, json.dumps(dict(os.environ)))
    elif name == "crash":
        os._exit(3)
    elif name == "wait":
        WAITING.append(id)
        settle()
    elif name in ("until_waiting", "until_cancelled"):
        ASKED[name] = id
        settle()
    elif name == "progress":
        for step in (1, 2):
            params = {"progressToken": token, "progress": step, "x": 1.0}
            say(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
        say(json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "for somebody"}}))
        text(id, "done")
    elif name == "ask":
        ASKED["client"] = id
        say(json.dumps({"jsonrpc": "2.0", "id": "mine", "method": "elicitation/create", "params": {}}))
    elif name == "eat":
        text(id, str(len(bytearray(arguments["bytes"]))))
    elif name == "grandchild":
        # It notices nothing of its parent's end.
        nowhere = subprocess.DEVNULL
        started = subprocess.Popen(["tail", "-f", "/dev/null"], stdin=nowhere, stdout=nowhere, stderr=nowhere)
        text(id, str(started.pid))
    elif name == "long":
        text(id, "x" * arguments["bytes"])
    elif name == "noise":
        say("this is no message")
        text(id, "but this is")
    else:
        say(json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "unknown tool"}}))


def settle():
    """Answers those that asked for what has happened now."""
    for name, happened in (("until_waiting", WAITING), ("until_cancelled", CANCELLED)):
        if happened and name in ASKED:
            text(ASKED.pop(name), "it happened")


def main():
    if len(sys.argv) > 1:
        with open(sys.argv[1], "a") as starts:
            starts.write(f"{os.getpid()}\n")
    print("raw starts", file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        method, id, params = message.get("method"), message.get("id"), message.get("params")
        if method == "server/discover":
            if os.environ.get("DIES_OF_DISCOVER"):
                os._exit(4)
            say(json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "unknown method"}}))
        elif method == "initialize":
            initialize(id, params)
        elif method == "tools/list":
            tool = {"name": "bytes", "inputSchema": {"type": "object"}, "futureField": 1.0}
            answer(id, json.dumps({"tools": [tool]}))
        elif method == "tools/call":
            call(id, params, line.rstrip("\n"))
        elif method == "notifications/cancelled":
            CANCELLED.extend(id for id in WAITING if id == params["requestId"])
            settle()
        elif method is None and id == "mine":
            text(ASKED.pop("client"), json.dumps(message))


main()
