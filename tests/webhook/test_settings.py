import re
from pathlib import Path

import pytest

from server.settings import SettingsError
from webhook import settings
from webhook.inject.containers import InjectSettings
from webhook.pods.delivery import Delivery
from webhook.settings import DECLARED

IMAGE = ["--image", "registry.example/stepmemo:1"]


def errors(*argv: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        settings.parse(argv, environ)
    return caught.value.errors


def test_an_image_is_all_that_has_to_be_said() -> None:
    chosen = settings.parse(IMAGE, {})
    assert chosen.listen == ("", 8443)
    assert chosen.certs == "cluster"
    assert chosen.validate == "enforce"
    assert chosen.inject == InjectSettings(image="registry.example/stepmemo:1")


def test_every_flag_has_a_twin_in_the_environment() -> None:
    values = {
        "listen": "[::1]:9443",
        "metrics-listen": "127.0.0.1:9090",
        "shutdown-delay": "1.5s",
        "certs": "files",
        "cert-dir": "/tmp/certs",
        "namespace": "memo",
        "service": "memo-webhook",
        "keeper-service": "memo-keeper",
        "secret": "memo.certs",
        "ca-secret": "memo.ca",
        "webhook-configuration": "memo.example",
        "pod-name": "memo-1",
        "image": "i:1",
        "image-pull-policy": "Always",
        "image-pull-secrets": "one, two",
        "injection": "image-volume",
        "check-timeout": "1500ms",
        "capture-timeout": "3s",
        "sidecar-requests": "cpu=5m,memory=16Mi",
        "sidecar-limits": "memory=1Gi,cpu=1",
        "cache-max-bytes": "500k",
        "access": "service",
        "store": "postgresql",
        "keeper-url": "https://127.0.0.1:9443",
        "validate": "warn",
        "auto-key-references": "resource-version",
        "log-format": "json",
        "log-level": "debug",
    }
    assert set(values) == set(DECLARED)
    by_flags = settings.parse([f"--{name}={value}" for name, value in values.items()], {})
    by_environment = settings.parse(
        [], {"STEPMEMO_" + name.upper().replace("-", "_"): value for name, value in values.items()}
    )
    assert by_flags == by_environment
    assert by_flags == settings.Settings(
        listen=("::1", 9443),
        metrics_listen=("127.0.0.1", 9090),
        shutdown_delay=1.5,
        certs="files",
        cert_dir=Path("/tmp/certs"),
        namespace="memo",
        pod_name="memo-1",
        service="memo-webhook",
        keeper_service="memo-keeper",
        secret="memo.certs",
        ca_secret="memo.ca",
        webhook_configuration="memo.example",
        validate="warn",
        inject=InjectSettings(
            image="i:1",
            image_pull_policy="Always",
            pull_secrets=("one", "two"),
            injection=Delivery.IMAGE_VOLUME,
            check_timeout_ms=1500,
            capture_timeout_ms=3000,
            requests={"cpu": "5m", "memory": "16Mi"},
            limits={"cpu": "1", "memory": "1Gi"},
            cache_max_bytes=500_000,
        ),
        access="service",
        store="postgresql",
        keeper_url="https://127.0.0.1:9443",
        auto_key_references="resource-version",
        log_format="json",
        log_level="debug",
    )


def test_steps_reach_the_keeper_by_its_service_unless_told_otherwise() -> None:
    chosen = settings.parse(IMAGE, {})
    assert (chosen.access, chosen.service) == ("service", "stepmemo-webhook")
    assert chosen.cache_service_url == "https://stepmemo-keeper.stepmemo.svc"
    renamed = settings.parse([*IMAGE, "--keeper-service=memo", "--namespace=tools"], {})
    assert renamed.cache_service_url == "https://memo.tools.svc"
    elsewhere = settings.parse([*IMAGE, "--keeper-url=https://127.0.0.1:9443"], {})
    assert elsewhere.cache_service_url == "https://127.0.0.1:9443"


def test_the_flag_wins_over_the_environment() -> None:
    chosen = settings.parse([*IMAGE, "--validate=off"], {"STEPMEMO_VALIDATE": "warn"})
    assert chosen.validate == "off"


def test_an_empty_variable_is_an_unset_one() -> None:
    assert settings.parse(IMAGE, {"STEPMEMO_VALIDATE": ""}).validate == "enforce"
    assert errors(STEPMEMO_IMAGE="") == errors()


def test_without_an_image_the_own_pod_has_to_be_named_which_says_it() -> None:
    (line,) = errors()
    assert line.startswith("--image (STEPMEMO_IMAGE) or --pod-name (STEPMEMO_POD_NAME) is required")
    chosen = settings.parse([], {"STEPMEMO_POD_NAME": "stepmemo-7d4b9c-x2x4z"})
    assert (chosen.inject.image, chosen.pod_name) == ("", "stepmemo-7d4b9c-x2x4z")


def test_everything_that_is_wrong_is_said_at_once_by_flag_and_variable() -> None:
    found = errors(
        "--listen=8443", "--check-timeout=2", STEPMEMO_VALIDATE="maybe", STEPMEMO_SERVICE="My_Service"
    )
    assert [line.partition(")")[0] + ")" for line in found] == [
        "--listen (STEPMEMO_LISTEN)",
        "--service (STEPMEMO_SERVICE)",
        "--check-timeout (STEPMEMO_CHECK_TIMEOUT)",
        "--validate (STEPMEMO_VALIDATE)",
        "--image (STEPMEMO_IMAGE)",
    ]


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--listen=x", '"x" must be an address and a port'),
        ("--metrics-listen=none", '"none" must be an address and a port'),
        ("--listen=:99999", "must be an address and a port"),
        ("--listen=:٣", "must be an address and a port"),
        ("--listen=::1:8443", "brackets"),
        ("--shutdown-delay=2m", "must be between 0s and 60s"),
        ("--check-timeout=2", "lacks a unit"),
        ("--check-timeout=1ms", "must be between 100ms and 60s"),
        ("--capture-timeout=-2s", "must be between"),
        ("--pod-name=My_Pod", "DNS-1123 subdomain"),
        ("--certs=vault", "must be one of cluster, files"),
        ("--cert-dir= ", "must be a directory"),
        ("--namespace=a.b", "DNS-1123 label"),
        ("--secret=A", "DNS-1123 subdomain"),
        ("--image=", "is required"),
        ("--image=a b", "without blanks"),
        ("--image-pull-policy=Sometimes", "must be one of Always, IfNotPresent, Never"),
        ("--image-pull-secrets=ok,Not_ok", "DNS-1123 subdomain"),
        ("--injection=image_volume", "must be one of init-container, image-volume"),
        ("--sidecar-requests=cpu=10m", "must name cpu and memory"),
        ("--sidecar-requests=cpu=10m,memory=1,gpu=1", "must name cpu and memory"),
        ("--sidecar-requests=cpu=ten,memory=1", "must hold quantities"),
        ("--sidecar-requests=cpu=0,memory=1", "must give cpu an amount above 0"),
        ("--cache-max-bytes=2Mi", 'must be at most "1Mi"'),
        ("--sidecar-limits=cpu=1,memory=1Mi", "must leave Python at least memory=32Mi"),
        ("--access=none", "must be one of service, direct"),
        ("--keeper-service=a.b", "DNS-1123 label"),
        ("--keeper-url=http://x", "must be like"),
        ("--keeper-url=https://x/y", "must be like"),
        ("--log-format=xml", "must be one of text, json"),
    ],
)
def test_a_value_that_cannot_be_says_what_it_must_be(argument: str, text: str) -> None:
    (line,) = errors(*IMAGE, argument) if not argument.startswith("--image=") else errors(argument)
    flag = argument.partition("=")[0]
    assert line.startswith(f"{flag} (STEPMEMO_")
    assert text in line


def test_steps_that_reach_their_caches_themselves_cannot_have_them_in_a_database() -> None:
    (found,) = errors(*IMAGE, "--access=direct", "--store=postgresql")
    assert found.startswith("--access (STEPMEMO_ACCESS) and --store (STEPMEMO_STORE): ")
    assert found.endswith("set --access service, or --store configmap")
    for fine in (("--access=direct",), ("--store=postgresql",)):
        settings.parse([*IMAGE, *fine], {})


def test_requests_above_limits_name_both_flags() -> None:
    found = errors(*IMAGE, "--sidecar-requests=cpu=2,memory=128Mi")
    both = "--sidecar-requests (STEPMEMO_SIDECAR_REQUESTS) and --sidecar-limits (STEPMEMO_SIDECAR_LIMITS)"
    assert found == (
        f"{both}: cpu: the request 2 is above the limit 500m",
        f"{both}: memory: the request 128Mi is above the limit 64Mi",
    )


def test_an_unknown_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse(["--imag", "x"], {})
    assert caught.value.code == 2
    assert "--imag" in capsys.readouterr().err


def test_help_shows_every_flag_with_its_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse(["--help"], {})
    assert caught.value.code == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for flag, setting in DECLARED.items():
        assert f"--{flag} {setting.reader.placeholder} " in shown
        assert f"{setting.help} [{setting.variable}; default {setting.default or 'none'}]" in shown
