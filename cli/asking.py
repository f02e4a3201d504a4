"""The keeper, asked by a person through the API server, with no other rights than his own.

Two of them count. Who may `create services/proxy` in stepmemo's Namespace gets through to the keeper; who may
`create serviceaccounts/token` of an account has a token that the keeper takes for that account's Namespace.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from cli.session import FAILED, SECONDS, CommandError, Session, failure
from kube import client
from kube.errors import ApiError, Forbidden, NotFound
from memoize import names

SERVICE = "https:stepmemo-keeper:https"
"""The keeper's Service with scheme and port, as the proxy, and a Role's `resourceNames`, have it."""
TOKEN_SECONDS = 600
"""How long a token lasts: the API server makes none that lasts for less (ValidateTokenRequest)."""
ATTEMPTS, LONGEST_PAUSE = 5, 5.0
"""For a keeper that has too much to do at the moment; seconds."""


class NoKeeperError(CommandError):
    """The keeper could not be asked, whatever Namespace it is about."""


class KeeperClient:
    """The keeper, for the caches of the Namespace; each method raises CommandError."""

    def __init__(self, connected: Session, stepmemo: str, account: str) -> None:
        """`stepmemo` is the Namespace where it runs, `account` the ServiceAccount that the token is for."""
        self._connected, self._stepmemo, self._account = connected, stepmemo, account
        self._token = ""

    async def pages(self, path: str, **asked: str) -> AsyncIterator[Mapping[str, Any]]:
        """The pages of a list."""
        after = ""
        while True:
            page = await self.ask(path, after=after, **asked)
            yield page
            if not (after := str(page.get("after") or "")):
                return

    async def ask(self, path: str, **asked: str) -> Mapping[str, Any]:
        """The answer to a question, by keeper.api.people."""
        self._token = self._token or await self._new_token()
        proxied = f"/api/v1/namespaces/{self._stepmemo}/services/{SERVICE}/proxy{path}"
        headers = {names.PEOPLES_TOKEN: self._token}
        for attempt in range(ATTEMPTS):
            try:
                return await client.request(
                    self._connected.api, "POST", proxied, seconds=SECONDS, body=asked, headers=headers
                )
            except ApiError as error:
                if not error.retry_after or attempt == ATTEMPTS - 1:
                    raise self._failure(error) from None
                await asyncio.sleep(min(error.retry_after, LONGEST_PAUSE))
        raise AssertionError("the last attempt returns or raises")

    async def _new_token(self) -> str:
        namespace, account = self._connected.namespace, self._account
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        spec = {"audiences": [names.TOKEN_AUDIENCE], "expirationSeconds": TOKEN_SECONDS}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        doing = f"create a token for the ServiceAccount {account}"
        try:
            made = await client.request(self._connected.api, "POST", path, seconds=SECONDS, body=body)
            return str(made["status"]["token"])
        except NotFound:
            said = f"no ServiceAccount {account} in the Namespace {namespace}, say --account"
            raise CommandError(said) from None
        except Forbidden as error:
            raise CommandError(
                f"{failure(doing, error)}. The keeper shows a Namespace's caches to who may do that, as the "
                f"ClusterRole edit may; or: {_grant(namespace, 'serviceaccounts/token', account)}"
            ) from None
        except ApiError as error:
            raise failure(doing, error) from None
        except (KeyError, TypeError):
            raise CommandError(f"cannot {doing}: the answer holds none") from None

    def _failure(self, error: ApiError) -> CommandError:
        """What to tell of an answer that is an error, of the keeper or of the API server before it."""
        said = failure("ask the keeper", error)
        if isinstance(error, Forbidden) and '"services/proxy"' in error.message:
            return NoKeeperError(
                f"{said}. The component manifests/components/people gives that right; or: "
                f"{_grant(self._stepmemo, 'services/proxy', SERVICE)}"
            )
        if isinstance(error, NotFound):
            where = f"in the Namespace {self._stepmemo}"
            return NoKeeperError(
                f"{said}: no keeper of this release with a database {where}, say --stepmemo-namespace, or "
                f"--no-keeper for ConfigMaps"
            )
        if error.status in (0, 503) and not error.retry_after:
            return NoKeeperError(f"{said}: see `stepmemo doctor`")
        return CommandError(str(said), FAILED)


def _grant(namespace: str, resource: str, name: str) -> str:
    """The commands that give a right to create a subresource of one object."""
    role = f"stepmemo-{resource.replace('/', '-')}"
    return (
        f"kubectl -n {namespace} create role {role} --verb=create --resource={resource} "
        f"--resource-name={name}; kubectl -n {namespace} create rolebinding {role} --role={role} --user=USER"
    )
