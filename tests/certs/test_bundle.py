import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certs import bundle, pki
from certs.bundle import BrokenBundleError, Bundle

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = pki.service_names("stepmemo", "stepmemo")


@pytest.fixture(scope="module")
def fresh() -> Bundle:
    return bundle.new(NAMES, NOW)


def test_a_secrets_data_gives_the_same_bundle_back(fresh: Bundle) -> None:
    assert Bundle.from_data(fresh.to_data()) == fresh


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
def test_a_secret_without_one_of_the_four_says_which(fresh: Bundle, name: str) -> None:
    data = fresh.to_data()
    with pytest.raises(BrokenBundleError, match=f"{name} is not base64"):
        Bundle.from_data({**data, name: "%%%"})
    del data[name]
    with pytest.raises(BrokenBundleError, match=f"{name} is missing"):
        Bundle.from_data(data)


def test_a_secret_without_data_is_broken() -> None:
    with pytest.raises(BrokenBundleError, match=r"ca\.crt is missing"):
        Bundle.from_data(None)


def test_a_sound_bundle_stays_the_same(fresh: Bundle) -> None:
    assert bundle.renewed(fresh, NAMES, NOW) == (fresh, "")


def test_a_certificate_near_its_end_is_renewed_under_the_same_ca(fresh: Bundle) -> None:
    late = NOW + timedelta(days=350)
    renewed, why = bundle.renewed(fresh, NAMES, late)
    assert "ends at" in why
    assert renewed.ca == fresh.ca
    assert bundle.renewed(renewed, NAMES, late) == (renewed, "")


def test_a_ca_near_its_end_is_replaced_with_everything_it_signed(fresh: Bundle) -> None:
    late = NOW + timedelta(days=3640)
    renewed, why = bundle.renewed(fresh, NAMES, late)
    assert why.startswith("the CA ends at")
    assert renewed.ca != fresh.ca
    assert bundle.renewed(renewed, NAMES, late) == (renewed, "")


def test_files_are_written_whole_and_for_their_owner_alone(fresh: Bundle, tmp_path: Path) -> None:
    directory = tmp_path / "run" / "certs"
    bundle.write(fresh, directory)
    bundle.write(fresh, directory)
    assert {path.name for path in directory.iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert (directory / "tls.crt").read_bytes() == fresh.server.certificate
    assert (directory / "tls.key").read_bytes() == fresh.server.key
    assert (directory / "ca.crt").read_bytes() == fresh.ca.certificate


def test_what_a_killed_writer_left_behind_is_no_obstacle(fresh: Bundle, tmp_path: Path) -> None:
    other = bundle.new(NAMES, NOW)
    bundle.write(other, tmp_path)
    for path in list(tmp_path.iterdir()):
        path.replace(path.with_name(f".{path.name}.{os.getpid()}"))
    bundle.write(fresh, tmp_path)
    assert (tmp_path / "tls.crt").read_bytes() == fresh.server.certificate


def test_the_cas_key_is_in_the_secret_and_in_no_file(fresh: Bundle, tmp_path: Path) -> None:
    bundle.write(fresh, tmp_path)
    assert "ca.key" in fresh.to_data()
    assert all(fresh.ca.key not in path.read_bytes() for path in tmp_path.iterdir())
