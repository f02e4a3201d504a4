"""The component `cert-manager`: who makes certificates, where they are found, and which rights are gone."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import keeper.settings
import webhook.settings
from certs import pki
from server.tls import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE
from tests.manifests.rendering import (
    CERT_MANAGER,
    KEEPER,
    PROGRAMS,
    WEBHOOK,
    Json,
    environment,
    find,
    overlay,
)

ALERTS = Path(__file__).parents[2] / "manifests" / "components" / "monitoring" / "prometheus-rule.yaml"
SETTINGS: dict[str, Any] = {WEBHOOK: webhook.settings, KEEPER: keeper.settings}

programs = pytest.mark.parametrize("program", PROGRAMS)


def certificate(name: str) -> Json:
    found: Json = find(overlay(CERT_MANAGER), "Certificate", name)["spec"]
    return found


def mounted(program: str) -> list[tuple[str, str, bool]]:
    """The Secret, the file and whether it may be missing, of all in the program's --cert-dir."""
    documents = overlay(CERT_MANAGER)
    spec = find(documents, "Deployment", program)["spec"]["template"]["spec"]
    chosen = SETTINGS[program].parse([], environment(documents, program))
    assert chosen.certs == "files"
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == str(chosen.cert_dir)]
    assert mount["readOnly"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    if "secret" in volume:
        secret, files = volume["secret"], (CERTIFICATE_FILE, KEY_FILE, AUTHORITY_FILE)
        return [(secret["secretName"], file, secret["optional"]) for file in files]
    sources = [source["secret"] for source in volume["projected"]["sources"]]
    assert all(item["key"] == item["path"] for source in sources for item in source["items"])
    return [(source["name"], i["path"], source["optional"]) for source in sources for i in source["items"]]


@programs
def test_a_certificate_names_the_service_that_it_is_for(program: str) -> None:
    assert certificate(program)["dnsNames"] == list(pki.service_names(program, "stepmemo"))


@programs
def test_a_program_serves_its_own_certificate_and_has_no_other_key(program: str) -> None:
    files = {file: secret for secret, file, _ in mounted(program)}
    own = certificate(program)["secretName"]
    assert (files[CERTIFICATE_FILE], files[KEY_FILE]) == (own, own)
    assert certificate(KEEPER)["secretName"] != certificate(WEBHOOK)["secretName"]


def test_steps_trust_who_signed_the_keepers_certificate() -> None:
    files = {file: secret for secret, file, _ in mounted(WEBHOOK)}
    assert files[AUTHORITY_FILE] == certificate(KEEPER)["secretName"]


@programs
def test_a_program_starts_without_a_secret_and_can_say_what_it_waits_for(program: str) -> None:
    assert all(optional for *_, optional in mounted(program))


def test_the_injector_takes_the_ca_of_the_webhooks_certificate() -> None:
    configuration = find(overlay(CERT_MANAGER), "MutatingWebhookConfiguration")
    assert configuration["metadata"]["annotations"] == {
        "cert-manager.io/inject-ca-from": f"stepmemo/{WEBHOOK}"
    }


def test_neither_program_may_touch_a_secret_or_the_webhook_configuration() -> None:
    rules = [rule for document in overlay(CERT_MANAGER) for rule in document.get("rules", ())]
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert "leases" in resources, "or nothing was looked at"
    assert resources & {"secrets", "mutatingwebhookconfigurations"} == set()


def test_no_binding_is_left_whose_role_is_gone() -> None:
    documents = overlay(CERT_MANAGER)
    roles = {(d["kind"], d["metadata"]["name"]) for d in documents if "rules" in d}
    bound = {(d["roleRef"]["kind"], d["roleRef"]["name"]) for d in documents if "roleRef" in d}
    assert bound == roles


def test_every_certificate_has_an_issuer_that_is_there_and_a_secret_of_its_own() -> None:
    documents = overlay(CERT_MANAGER)
    certificates = [d["spec"] for d in documents if d["kind"] == "Certificate"]
    issuers = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Issuer"}
    assert {one["issuerRef"]["name"] for one in certificates} == set(issuers)
    secrets = [one["secretName"] for one in certificates]
    ours = {SETTINGS[WEBHOOK].DECLARED[flag].default for flag in ("secret", "ca-secret")}
    assert len({*secrets, *ours}) == len(secrets) + len(ours), (
        "an installation can change from one to the other"
    )
    (ca,) = [one for one in certificates if one.get("isCA")]
    assert [spec["ca"]["secretName"] for spec in issuers.values() if "ca" in spec] == [ca["secretName"]]
    assert ca["privateKey"]["rotationPolicy"] == "Never", "or who trusts one trusts not the next"


@programs
def test_a_certificate_is_renewed_long_before_the_alert_says_that_it_was_not(program: str) -> None:
    found = re.search(r"certificate_expiry.* < (\d+) \* 86400", ALERTS.read_text(encoding="utf-8"))
    assert found
    before = timedelta(hours=int(certificate(program)["renewBefore"].removesuffix("h")))
    assert before >= 2 * timedelta(days=int(found[1]))
