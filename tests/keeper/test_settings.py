import re
import sys
from itertools import accumulate, takewhile
from pathlib import Path

import pytest

from keeper import settings
from keeper.settings import DECLARED, Settings
from memoize import plan
from memoize.keeper_status import MOST_NAMES, MOST_STEPS, KeeperStatus, Namespaces, digest
from server.settings import SettingsError


def errors(*argv: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        settings.parse(argv, {})
    return caught.value.errors


def test_nothing_has_to_be_said() -> None:
    assert settings.parse([], {}) == Settings()
    assert Settings().listen == ("", 8443)
    assert Settings().metrics_listen == ("", 8080)
    assert settings.parse(["--metrics-listen=off"], {}).metrics_listen is None
    assert Settings().namespaces == ()


def test_every_flag_has_a_twin_in_the_environment() -> None:
    values = {
        "listen": "[::1]:9443",
        "metrics-listen": "127.0.0.1:9090",
        "shutdown-delay": "1.5s",
        "certs": "files",
        "cert-dir": "/tmp/certs",
        "state-dir": "/tmp/state",
        "namespace": "memo",
        "secret": "memo.certs",
        "namespaces": "one, two",
        "gate-timeout": "10s",
        "single-flight-timeout": "1m30s",
        "single-flight-waiters": "20",
        "requests-per-second": "50",
        "nudge": "off",
        "controller-configmaps": "argo/config, ops/config",
        "metrics-namespaces": "20",
        "hit-interval": "1h",
        "cache-max-bytes": "512Ki",
        "gc-unused-for": "720h",
        "verify-artifacts": "/run/repositories",
        "store": "configmap",
        "dsn-file": "/run/dsn",
        "postgresql-connections": "20",
        "postgresql-max-bytes-per-namespace": "512Mi",
        "log-format": "json",
        "log-level": "debug",
    }
    assert set(values) == set(DECLARED)
    by_flags = settings.parse([f"--{name}={value}" for name, value in values.items()], {})
    by_environment = settings.parse(
        [], {"STEPMEMO_" + name.upper().replace("-", "_"): value for name, value in values.items()}
    )
    assert by_flags == by_environment
    assert by_flags == Settings(
        listen=("::1", 9443),
        metrics_listen=("127.0.0.1", 9090),
        shutdown_delay=1.5,
        certs="files",
        cert_dir=Path("/tmp/certs"),
        state_dir=Path("/tmp/state"),
        namespace="memo",
        secret="memo.certs",
        namespaces=("one", "two"),
        gate_timeout=10,
        single_flight_timeout=90,
        single_flight_waiters=20,
        requests_per_second=50,
        nudge="off",
        controllers=(("argo", "config"), ("ops", "config")),
        metrics_namespaces=20,
        hit_interval=3600,
        cache_max_bytes=512 << 10,
        gc_unused_for=720 * 3600,
        verify_artifacts=Path("/run/repositories"),
        store="configmap",
        dsn_file=Path("/run/dsn"),
        postgresql_connections=20,
        postgresql_max_bytes_per_namespace=512 << 20,
        log_format="json",
        log_level="debug",
    )


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--listen=x", '"x" must be an address and a port'),
        ("--metrics-listen=none", '"none" must be an address and a port'),
        ("--certs=vault", "must be one of cluster, files"),
        ("--state-dir= ", "must be a directory"),
        ("--namespaces=a,B", "DNS-1123 label"),
        ("--gate-timeout=1ms", "must be between 1s and 5m"),
        ("--single-flight-waiters=0", "must be a number between 1 and 100000"),
        ("--nudge=yes", "must be one of on, off"),
        ("--controller-configmaps=config", 'must be like "argo/workflow-controller-configmap"'),
        ("--controller-configmaps=argo/config,A/b", "DNS-1123 label"),
        ("--controller-configmaps=argo/a/b", "DNS-1123 subdomain"),
        ("--metrics-namespaces=1001", "must be a number between 0 and 1000"),
        ("--cache-max-bytes=1Gi", 'must be a number of bytes, such as "512Ki"'),
        ("--cache-max-bytes=2Mi", 'must be at most "1Mi"'),
        ("--cache-max-bytes=1Ki", 'must be at least "4Ki"'),
        ("--gc-unused-for=1m", "must be between 1h and 8760h"),
        ("--store=mysql", "must be one of configmap, postgresql"),
        ("--dsn-file= ", "must be a file"),
        ("--postgresql-connections=4", "must be a number between 5 and 1000"),
        ("--postgresql-max-bytes-per-namespace=1Ki", 'must be between "1Mi" and "1Ei"'),
        ("--postgresql-max-bytes-per-namespace=much", 'such as "512Mi" or "10Gi"'),
        ("--log-format=xml", "must be one of text, json"),
    ],
)
def test_a_value_that_cannot_be_says_what_it_must_be(argument: str, text: str) -> None:
    (line,) = errors(argument)
    assert line.startswith(f"{argument.partition('=')[0]} (STEPMEMO_")
    assert text in line


def test_artifacts_are_not_looked_for_without_what_that_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["--verify-artifacts=/etc/stepmemo/repositories.yaml"]
    assert settings.parse(argv, {}).verify_artifacts == Path("/etc/stepmemo/repositories.yaml")
    assert settings.parse([], {}).verify_artifacts is None
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert settings.parse([], {}).verify_artifacts is None
    with pytest.raises(SettingsError, match=r"--verify-artifacts .*: obstore is not installed: pip install"):
        settings.parse(argv, {})


def test_nothing_is_cleaned_up_by_what_is_not_known() -> None:
    (line,) = errors("--hit-interval=1h", "--gc-unused-for=119m")
    assert line.startswith("--gc-unused-for (STEPMEMO_GC_UNUSED_FOR): must be at least twice --hit-interval")
    assert settings.parse(["--hit-interval=1h", "--gc-unused-for=2h"], {}).gc_unused_for == 7200


def test_either_store_is_cleaned_up() -> None:
    chosen = settings.parse(["--store=postgresql", "--gc-unused-for=720h"], {})
    assert (chosen.store, chosen.gc_unused_for) == ("postgresql", 720 * 3600)


def test_two_hundred_namespaces_are_kept_and_more_than_can_be_told_are_refused() -> None:
    some = [f"a-namespace-of-some-team-{number}" for number in range(200)]
    assert settings.parse([f"--namespaces={','.join(some)}"], {}).namespaces == tuple(some)
    (line,) = errors("--namespaces=" + ",".join(f"{number:063}" for number in range(300)))
    assert line.startswith("--namespaces (STEPMEMO_NAMESPACES): too many names for the keeper's Lease")


def test_whatever_namespaces_are_accepted_a_keeper_in_trouble_can_tell_them() -> None:
    def accepts(*kept: str) -> bool:
        try:
            settings.parse([f"--namespaces={','.join(kept)}", "--single-flight-timeout=24h"], {})
        except SettingsError:
            return False
        return True

    many = list(takewhile(lambda some: accepts(*some), accumulate([f"{n:063}"] for n in range(300))))[-1]
    longest = [one for one in ([*many, "a" * length] for length in range(1, 64)) if accepts(*one)][-1]
    kept = Namespaces(frozenset(longest))
    some = Namespaces.of([f"{number:063}" for number in range(MOST_NAMES)])
    said = KeeperStatus(
        keeps=kept,
        wait_seconds=86_400,
        plans=plan.READS,
        backlogged=some,
        stopped=some,
        trial=some,
        troubled=tuple(digest("work", str(number)) for number in range(MOST_STEPS)),
    )
    told = KeeperStatus.from_json(said.to_json())
    assert told is not None
    assert told.keeps == kept


def test_help_shows_every_flag_with_its_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.parse(["--help"], {})
    assert caught.value.code == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for flag, setting in DECLARED.items():
        assert f"--{flag} {setting.reader.placeholder} " in shown
        assert f"{setting.help} [{setting.variable}; default {setting.default or 'none'}]" in shown
