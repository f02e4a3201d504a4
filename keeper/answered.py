"""Which nodes may have an answer of ours beside them that was posted for an earlier Pod of theirs.

No step may run beside one, so a release looks at its node's result (keeper.actions). Of a Workflow of which
many steps run, this is known at once by one list of its results: that names what others have posted until
then. What came since was posted by this process, or by containers of ours in a Pod that the watch has shown.
Wherever that may not be all, the answer is yes, and the node's result is read.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from argo import names as argo
from argo.shape import mapping
from keeper import paths
from keeper.requests import Requests
from keeper.steppods import GatedStep
from kube import client, cost
from kube.errors import ApiError
from memoize.spec import is_dns1123_subdomain
from memoize.taskresult import posted_by_us

SETTLED = 30.0
"""Seconds after which nothing arrives any more that another keeper sent before it lost the Lease. Requests
have a time-out of five."""
LISTED_AFTER = 10
"""Steps of a Workflow whose results are read before they are listed: that may cost the API server a look at
all results of the Namespace."""
MOST_LISTED = 500
"""Results of one Workflow, their metadata of about a kilobyte each. Of a larger one each is read."""
REMEMBERED = 600.0
"""Seconds for which things are remembered: as many requests go in that time as may (Requests)."""


class _Workflow(NamedTuple):
    namespace: str
    name: str
    """Not its uid: where another Workflow has its name, so have the results, and one may outlive its own."""


@dataclass(slots=True)
class _Known:
    released: int = 0
    listed: "asyncio.Task[frozenset[str] | None] | None" = None
    """The nodes that had an answer; None where that could not be told."""
    noted: set[str] = field(default_factory=set)
    """Those that may have got one since."""


class Answered:
    """`clock` counts seconds."""

    def __init__(self, requests: Requests, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests, self._clock = requests, clock
        self.forget()

    def forget(self) -> None:
        """Others may have posted answers, or Pods come and gone, that this process does not know of."""
        self._settled = self._clock() + SETTLED
        self._forget_all()

    def note(self, namespace: str, workflow: str, node_id: str) -> None:
        """An answer may be posted for a Pod of this node. To be called before it is."""
        self._of(_Workflow(namespace, workflow)).noted.add(node_id)

    async def may_be(self, pod: GatedStep) -> bool:
        """Whether there may be one for an earlier Pod of this one's node; does not raise."""
        if self._clock() < self._settled:
            return True
        workflow = _Workflow(pod.namespace, pod.step.workflow)
        known = self._of(workflow)
        known.released += 1
        if known.released <= LISTED_AFTER:
            return True
        if known.listed is None:
            known.listed = cost.create_task(self._list(workflow))
        listed = await asyncio.shield(known.listed)
        return listed is None or pod.node_id in listed or pod.node_id in known.noted

    def _of(self, workflow: _Workflow) -> _Known:
        if self._clock() >= self._ends:
            self._forget_all()
        return self._known[workflow]

    def _forget_all(self) -> None:
        self._ends = self._clock() + REMEMBERED
        self._known = defaultdict[_Workflow, _Known](_Known)

    async def _list(self, workflow: _Workflow) -> frozenset[str] | None:
        if not is_dns1123_subdomain(workflow.name):
            return None  # a tenant wrote it, and it must not select anything else
        query = [("labelSelector", f"{argo.WORKFLOW_LABEL}={workflow.name}"), ("limit", str(MOST_LISTED))]
        path = paths.task_results(workflow.namespace)
        try:
            page = await self._requests.send("GET", path, accept=client.METADATA_LIST, query=query)
        except ApiError:
            return None
        results = page.get("items") or []  # null where there are none
        if mapping(page.get("metadata")).get("continue") or not isinstance(results, list):
            return None
        return frozenset(
            str(mapping(result.get("metadata")).get("name"))
            for result in map(mapping, results)
            if posted_by_us(result)
        )
