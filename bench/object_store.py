"""`python -m bench.object_store`: an object store as S3 is one, that has every object.

It prints its address, and serves until standard input ends.
"""

import asyncio
import sys

from tests.keeper.artifacts.objects import Objects


async def _serve() -> None:
    objects = Objects()
    objects.everything = '"1"'
    async with objects.serving() as address:
        print(address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
