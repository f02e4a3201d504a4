"""`python -m bench.constant PORT CERT_DIR`: the webhook's yardstick.

An aiohttp server with the webhook's TLS settings that parses the same reviews and answers a constant.
"""

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web

from server.bodies import BODY_LIMIT
from server.listener import READY_PATH
from server.tls import ServingCertificate
from webhook.hooks import PODS_PATH, WORKFLOWS_PATH

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


async def serve(port: int, certificates: Path) -> None:
    """Serve on this host until killed."""
    app = web.Application(client_max_size=BODY_LIMIT)
    app.router.add_post(PODS_PATH, _answer)
    app.router.add_post(WORKFLOWS_PATH, _answer)
    app.router.add_get(READY_PATH, _ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    serving = ServingCertificate(certificates)
    serving.reload()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=serving.context).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
