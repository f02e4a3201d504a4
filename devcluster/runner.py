"""An Argo-shaped controller: watches Workflows, makes the Pods of their steps, reads their results.

Seen from the cluster it is like Argo's (Pods, WorkflowTaskResults, a Workflow's status); inside it is
simpler: one task per Workflow walks its templates. Left out: everything that
devcluster.workflows.check_supported refuses, Argo's own memoization, and going on after a restart.
"""

import asyncio
from pathlib import Path

from devcluster.client import WORKFLOWS, Client
from devcluster.execution import Kill, Surroundings, WorkflowRun
from devcluster.observed import Observed

KILL_SECONDS = 3.0
"""About how long Argo 4.1 takes, after main's end, to signal containers that still run."""
REQUEUE_SECONDS = 0.3
"""Argo looks at a workflow that its Pods changed after 10 s, or a DEFAULT_REQUEUE_TIME of 1 s and more."""


async def run(client: Client, store: Path, kill: Kill, kill_seconds: float = KILL_SECONDS) -> None:
    """Run every Workflow of `client`'s API until cancelled; artifacts are kept in `store`."""
    observed = Observed(client)
    surroundings = Surroundings(client, observed, store, kill, kill_seconds, REQUEUE_SECONDS)
    started: set[str] = set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(observed.run())
        async for kind, workflow in client.follow(WORKFLOWS):
            uid = workflow["metadata"]["uid"]
            begun = uid in started or (workflow.get("status") or {}).get("phase")
            if kind != "DELETED" and not begun:
                started.add(uid)
                tasks.create_task(WorkflowRun(workflow, surroundings).run())
