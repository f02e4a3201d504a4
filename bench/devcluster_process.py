"""`python -m bench.devcluster_process DIR`: the devcluster's API server.

It prints one line of JSON, and serves until standard input ends, as tools/control-plane does.
"""

import asyncio
import json
import sys
from pathlib import Path

from devcluster.api import serve


async def _serve(directory: Path) -> None:
    async with serve(directory) as api:
        ready = {"url": api.url, "ca_file": api.ca_file, "kubeconfig": api.kubeconfig}
        print(json.dumps({**ready, "admin_token": api.admin_token}, default=str), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
