"""Mutating admission webhooks: which are asked, how, and what becomes of their answers.

Left out: matchConditions (CEL) are not evaluated, so a webhook is asked whenever its rules and selectors
fit and has to judge for itself; matchPolicy (each kind has one version here); validating webhooks.
"""

import base64
import binascii
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import aiohttp

from devcluster.api import errors, kinds, review
from devcluster.api.errors import ApiError
from devcluster.api.kinds import Object
from devcluster.api.review import Attributes, WebhookError
from devcluster.api.selectors import label_selector_matches
from devcluster.api.store import Store

Services = Mapping[tuple[str, str], tuple[str, int]]
"""Where a Service of a namespace and name is reached: host and port. The devcluster has no Services."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of admission: the object as the webhooks want it, and their warnings."""

    object: Object | None
    warnings: list[str]


class Webhooks:
    """Asks the webhooks of the MutatingWebhookConfigurations in the store."""

    def __init__(self, store: Store, session: aiohttp.ClientSession, services: Services):
        self._store = store
        self._session = session
        self._services = services

    async def admit(
        self,
        attributes: Attributes,
        new: Object | None,
        old: Object | None,
        prepare: Callable[[Object], Object],
    ) -> Admitted:
        """Ask every webhook that fits, in the order of the configurations' names.

        `prepare` is what the server does before the webhooks; it is done again where they changed the
        object, and then those with `reinvocationPolicy: IfNeeded` that have not seen the outcome are asked
        once more. ApiError for a denial, or for a failure under `failurePolicy: Fail`, with the warnings so
        far in `warnings`.
        """
        warnings: list[str] = []
        result, answers = new, []
        try:
            for webhook in self._matching(attributes, new, old):
                result = await self._ask(webhook, attributes, result, old, warnings)
                answers.append((webhook, result))
            if result is not None and result != new:
                result = prepare(result)
                for webhook, answer in answers:
                    if webhook.get("reinvocationPolicy") == "IfNeeded" and answer != result:
                        result = await self._ask(webhook, attributes, result, old, warnings)
        except ApiError as error:
            error.warnings = warnings
            raise
        return Admitted(result, warnings)

    def _matching(self, attributes: Attributes, new: Object | None, old: Object | None) -> Iterable[Object]:
        if attributes.kind is kinds.MUTATING_WEBHOOKS:
            return
        namespace = self._namespace_labels(attributes, new or old)
        for configuration in self._store.objects(kinds.MUTATING_WEBHOOKS):
            for webhook in configuration.get("webhooks") or []:
                fits_namespace = namespace is None or label_selector_matches(
                    webhook.get("namespaceSelector") or {}, namespace
                )
                if (
                    any(_rule_fits(rule, attributes) for rule in webhook.get("rules") or [])
                    and fits_namespace
                    and _object_fits(webhook.get("objectSelector") or {}, new, old)
                ):
                    yield webhook

    def _namespace_labels(self, attributes: Attributes, obj: Object | None) -> Mapping[str, str] | None:
        """The labels that a namespaceSelector looks at; None for cluster-scoped objects, which all pass."""
        if attributes.kind is kinds.NAMESPACE:
            return _labels(obj)
        if not attributes.kind.namespaced:
            return None
        return _labels(self._store.get(kinds.NAMESPACE, "", attributes.namespace))

    async def _ask(
        self,
        webhook: Object,
        attributes: Attributes,
        new: Object | None,
        old: Object | None,
        warnings: list[str],
    ) -> Object | None:
        name = webhook["name"]
        try:
            response = await self._call(webhook, attributes, new, old)
        except WebhookError as error:
            if webhook.get("failurePolicy", "Fail") == "Ignore":
                return new
            raise errors.internal(f'failed calling webhook "{name}": {error}') from error
        warnings.extend(response.get("warnings") or [])
        if response.get("allowed") is not True:
            raise review.denial(name, response.get("status") or {})
        if not response.get("patch") or new is None:
            return new
        return review.patched(new, response["patch"])

    async def _call(
        self, webhook: Object, attributes: Attributes, new: Object | None, old: Object | None
    ) -> Object:
        """The `response` of the webhook's AdmissionReview; WebhookError."""
        request = review.question(attributes, new, old)
        body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        seconds = webhook.get("timeoutSeconds", 10)
        url, server_name = self._target(webhook["clientConfig"])
        url = f"{url}?timeout={seconds}s"
        try:
            context = _context(webhook["clientConfig"].get("caBundle", ""))
            async with self._session.post(
                url,
                json=body,
                ssl=context,
                server_hostname=server_name,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as answer:
                text, code = await answer.text(), answer.status
        except TimeoutError as error:
            why = f'failed to call webhook: Post "{url}": context deadline exceeded'
            raise WebhookError(why) from error
        except (aiohttp.ClientError, OSError, ValueError, binascii.Error) as error:
            raise WebhookError(f'failed to call webhook: Post "{url}": {error}') from error
        if code >= 500:
            why = 'an error on the server ("unknown") has prevented the request from succeeding'
            raise WebhookError(f"failed to call webhook: {why}")
        if code >= 400:
            raise WebhookError(
                "failed to call webhook: the server rejected our request for an unknown reason"
            )
        return review.read(text, request["uid"])

    def _target(self, client: Mapping[str, Any]) -> tuple[str, str | None]:
        """The URL to post to and, for a Service, the name that its certificate must carry."""
        if url := client.get("url"):
            return url, None
        service = client["service"]
        namespace, name = service["namespace"], service["name"]
        found = self._services.get((namespace, name))
        if found is None:
            raise WebhookError(f'failed to call webhook: service "{name}" not found')
        host, port = found
        return f"https://{host}:{port}{service.get('path', '/')}", f"{name}.{namespace}.svc"


@lru_cache(maxsize=16)
def _context(ca_bundle: str) -> ssl.SSLContext:
    pem = base64.b64decode(ca_bundle).decode() if ca_bundle else None
    return ssl.create_default_context(cadata=pem)


def _labels(obj: Object | None) -> Mapping[str, str]:
    return (obj or {}).get("metadata", {}).get("labels") or {}


def _object_fits(selector: Mapping[str, Any], new: Object | None, old: Object | None) -> bool:
    return any(label_selector_matches(selector, _labels(obj)) for obj in (new, old) if obj is not None)


def _rule_fits(rule: Mapping[str, Any], attributes: Attributes) -> bool:
    kind, plural = attributes.kind, attributes.kind.plural
    if attributes.subresource:
        resources = {
            f"{plural}/{attributes.subresource}",
            f"{plural}/*",
            f"*/{attributes.subresource}",
            "*/*",
        }
    else:
        resources = {plural, "*", "*/*"}
    scope = "Namespaced" if kind.namespaced else "Cluster"
    return (
        not {attributes.operation, "*"}.isdisjoint(rule.get("operations") or [])
        and not {kind.group, "*"}.isdisjoint(rule.get("apiGroups") or [])
        and not {kind.version, "*"}.isdisjoint(rule.get("apiVersions") or [])
        and not resources.isdisjoint(rule.get("resources") or [])
        and rule.get("scope", "*") in ("*", scope)
    )
