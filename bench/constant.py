"""`python -m bench.constant PORT CERT_DIR READY_PATH PATH…`: the webhook's yardstick.

An aiohttp server with the webhook's TLS settings that parses the reviews that are sent to these paths, and
answers a constant.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from server.bodies import BODY_LIMIT
from server.tls import ServingCertificate

_ANSWER = json.dumps(
    {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "0", "allowed": True, "auditAnnotations": {"reason": "Constant"}},
    }
).encode()


async def _answer(request: web.Request) -> web.Response:
    json.loads(await request.read())
    return web.Response(body=_ANSWER, content_type="application/json")


async def _ready(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def serve(port: int, certificates: Path, ready_path: str, paths: Sequence[str]) -> None:
    """Serve on this host until killed."""
    app = web.Application(client_max_size=BODY_LIMIT)
    for path in paths:
        app.router.add_post(path, _answer)
    app.router.add_get(ready_path, _ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    serving = ServingCertificate(certificates)
    serving.reload()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=serving.context).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
