"""The independent conformance check of SCIM against the directory at an address; prints what each check found, as JSON."""

import json
import os
import sys

from httpx2 import Client
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import check_server


def main() -> None:
    headers = {"authorization": f"Bearer {os.environ['TOKEN']}"}
    with Client(base_url=sys.argv[1], headers=headers, trust_env=False) as client:
        results = check_server(SyncSCIMClient(client))
    found = [
        {
            "status": result.status.name,
            "title": result.title,
            "of": result.resource_type,
            "reason": result.reason,
        }
        for result in results
    ]
    print(json.dumps(found))


main()
