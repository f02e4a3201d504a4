import base64
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certs import bundle, pki
from certs.bundle import BrokenBundleError, Bundle

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = pki.service_names("stepmemo", "stepmemo") + pki.service_names("stepmemo-keeper", "stepmemo")


@pytest.fixture(scope="module")
def fresh() -> Bundle:
    return bundle.new(NAMES, NOW)


# --- As a Secret's data ------------------------------------------------------------------------------


def test_the_data_of_both_secrets_gives_the_same_bundle_back(fresh: Bundle) -> None:
    signers = bundle.signers_from_data(fresh.signers_to_data())
    assert Bundle.from_data(fresh.to_data(), signers) == fresh


def test_who_may_not_read_the_cas_key_has_everything_else(fresh: Bundle) -> None:
    assert Bundle.from_data(fresh.to_data()) == replace(fresh, signers=())


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
def test_a_secret_without_one_of_the_three_says_which(fresh: Bundle, name: str) -> None:
    data = fresh.to_data()
    for broken in ("%%%", "ü"):
        with pytest.raises(BrokenBundleError, match=f"{name} is not base64"):
            Bundle.from_data({**data, name: broken})
    del data[name]
    with pytest.raises(BrokenBundleError, match=f"{name} is missing"):
        Bundle.from_data(data)


def test_a_secret_without_data_is_broken() -> None:
    with pytest.raises(BrokenBundleError, match=r"ca\.crt is missing"):
        Bundle.from_data(None)


@pytest.mark.parametrize(
    "data", [None, {}, {"ca.crt": "QQ==", "ca.key": "QQ=="}, {"ca.crt": "%", "ca.key": ""}]
)
def test_a_secret_that_holds_no_ca_has_none(data: dict[str, str] | None) -> None:
    assert bundle.signers_from_data(data) == ()


def test_the_cas_key_is_in_its_own_secret_alone(fresh: Bundle, tmp_path: Path) -> None:
    bundle.write(fresh, tmp_path)
    (ca,) = fresh.signers
    assert base64.b64decode(fresh.signers_to_data()["ca.key"]) == ca.key
    everything = [base64.b64decode(text) for text in fresh.to_data().values()]
    assert all(ca.key not in text for text in [*everything, *(f.read_bytes() for f in tmp_path.iterdir())])


# --- What follows in time ----------------------------------------------------------------------------


def test_a_sound_bundle_stays_the_same(fresh: Bundle) -> None:
    assert bundle.renewed(fresh, NAMES, NOW) == (fresh, "")


@pytest.mark.parametrize(("days_left", "is_replaced"), [(31, False), (30, True), (0, True), (-5, True)])
def test_a_certificate_is_replaced_in_its_last_thirty_days_under_the_same_ca(
    fresh: Bundle, days_left: int, is_replaced: bool
) -> None:
    late = NOW + (365 - days_left) * DAY
    renewed, why = bundle.renewed(fresh, NAMES, late)
    assert bool(why) == (renewed.server != fresh.server) == is_replaced
    assert "the certificate end" in why or not is_replaced
    assert (renewed.signers, renewed.trusted) == (fresh.signers, fresh.trusted)
    assert bundle.renewed(renewed, NAMES, late) == (renewed, "")


def nearing_its_end(fresh: Bundle) -> Bundle:
    """Nine years on, with a certificate that ends as its CA does."""
    (ca,) = fresh.signers
    return replace(fresh, server=pki.new_server(ca, NAMES, NOW + 3300 * DAY))


def test_a_next_ca_is_made_known_sixty_days_before_the_end_and_does_not_sign_yet(fresh: Bundle) -> None:
    old = nearing_its_end(fresh)
    assert bundle.renewed(old, NAMES, NOW + 3589 * DAY) == (old, "")
    renewed, why = bundle.renewed(old, NAMES, NOW + 3590 * DAY)
    assert why == "a next CA is due; other CAs are to be trusted"
    assert renewed.signers[:1] == old.signers
    assert renewed.trusted == tuple(ca.certificate for ca in renewed.signers)
    assert len(renewed.trusted) == 2
    assert renewed.server == old.server
    assert bundle.renewed(renewed, NAMES, NOW + 3620 * DAY) == (renewed, ""), "no later end could be had"


def test_the_next_ca_signs_after_thirty_one_days_and_the_old_one_goes_when_it_ends(fresh: Bundle) -> None:
    both, _ = bundle.renewed(nearing_its_end(fresh), NAMES, NOW + 3590 * DAY)
    renewed, why = bundle.renewed(both, NAMES, NOW + 3621 * DAY)
    assert why == "the certificate ends at 2036-02-27T00:00:00Z"
    assert renewed.issuer == both.trusted[1]
    assert renewed.trusted == both.trusted
    later, why = bundle.renewed(renewed, NAMES, NOW + 3650 * DAY + DAY)
    assert why == "other CAs are to be trusted"
    assert later == replace(renewed, signers=both.signers[1:], trusted=both.trusted[1:])


def test_while_the_next_ca_is_young_a_new_certificate_is_by_the_old_one(fresh: Bundle) -> None:
    both, _ = bundle.renewed(nearing_its_end(fresh), NAMES, NOW + 3590 * DAY)
    more = (*NAMES, "another.name")
    renewed, why = bundle.renewed(both, more, NOW + 3600 * DAY)
    assert why == "the certificate does not name another.name"
    assert renewed.issuer == both.trusted[0]


def test_a_ca_that_was_not_known_until_now_does_not_sign_whatever_its_age(fresh: Bundle) -> None:
    both, _ = bundle.renewed(nearing_its_end(fresh), NAMES, NOW + 3590 * DAY)
    forgotten = replace(both, trusted=both.trusted[:1], server=pki.Pair(b"", b""))
    renewed, _ = bundle.renewed(forgotten, NAMES, NOW + 3640 * DAY)
    assert renewed.issuer == both.trusted[0]


def test_a_lost_key_makes_a_next_ca_and_leaves_the_certificate(fresh: Bundle) -> None:
    renewed, why = bundle.renewed(replace(fresh, signers=()), NAMES, NOW + DAY)
    assert why == "there was no CA to sign with; other CAs are to be trusted"
    assert renewed.server == fresh.server
    assert renewed.trusted == (*fresh.trusted, renewed.signers[0].certificate)


def test_a_certificate_of_a_ca_that_is_not_there_is_replaced(fresh: Bundle) -> None:
    strange = bundle.new(NAMES, NOW)
    renewed, why = bundle.renewed(replace(fresh, server=strange.server), NAMES, NOW)
    assert why == "no CA that is trusted has signed the certificate"
    assert renewed.issuer == fresh.trusted[0]


def test_a_certificate_or_a_ca_from_the_future_is_replaced(fresh: Bundle) -> None:
    (ca,) = fresh.signers
    early = replace(fresh, server=pki.new_server(ca, NAMES, NOW + 10 * DAY))
    renewed, why = bundle.renewed(early, NAMES, NOW)
    assert "the certificate is valid from 2026-03-10T23:00:00Z on" in why
    assert renewed.signers == fresh.signers
    renewed, why = bundle.renewed(fresh, NAMES, NOW - DAY)
    assert "there was no CA to sign with" in why
    assert renewed.issuer != fresh.issuer


def test_what_is_trusted_is_never_more_than_three_and_never_without_what_is_needed(fresh: Bundle) -> None:
    strangers = tuple(pki.new_ca(NOW + n * DAY).certificate for n in range(1, 6))
    renewed, _ = bundle.renewed(replace(fresh, trusted=fresh.trusted + strangers), NAMES, NOW + 9 * DAY)
    assert renewed.trusted == fresh.trusted + strangers[-2:]


# --- What a caBundle has to hold ---------------------------------------------------------------------


def test_a_ca_bundle_keeps_the_newest_three_valid_cas_that_it_holds(fresh: Bundle) -> None:
    ended = pki.new_ca(NOW - 4000 * DAY).certificate
    others = [pki.new_ca(NOW - n * DAY).certificate for n in (4, 3, 2, 1)]
    found = b"".join([ended, fresh.server.certificate, *reversed(others), b"junk", *fresh.trusted])
    assert bundle.to_trust(fresh.trusted, found, NOW) == (*others[1:], *fresh.trusted)
    assert bundle.to_trust(fresh.trusted, b"", NOW) == fresh.trusted


def test_two_replicas_that_need_different_cas_come_to_the_same_ca_bundle(fresh: Bundle) -> None:
    other = bundle.new(NAMES, NOW + DAY)
    one = bundle.to_trust(fresh.trusted, b"", NOW)
    both = bundle.to_trust(other.trusted, b"".join(one), NOW)
    assert bundle.to_trust(fresh.trusted, b"".join(both), NOW) == both == fresh.trusted + other.trusted


# --- As files ----------------------------------------------------------------------------------------


def test_files_are_written_whole_and_for_their_owner_alone(fresh: Bundle, tmp_path: Path) -> None:
    directory = tmp_path / "run" / "certs"
    assert bundle.write(fresh, directory)
    assert not bundle.write(fresh, directory)
    assert {path.name for path in directory.iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert (directory / "tls.crt").read_bytes() == fresh.server.certificate
    assert (directory / "tls.key").read_bytes() == fresh.server.key
    assert (directory / "ca.crt").read_bytes() == b"".join(fresh.trusted)
    (directory / "tls.crt").write_text("edited")
    assert bundle.write(fresh, directory)
    assert (directory / "tls.crt").read_bytes() == fresh.server.certificate


def test_what_a_killed_writer_left_behind_is_no_obstacle(fresh: Bundle, tmp_path: Path) -> None:
    other = bundle.new(NAMES, NOW)
    bundle.write(other, tmp_path)
    for path in list(tmp_path.iterdir()):
        path.replace(path.with_name(f".{path.name}.{os.getpid()}"))
    bundle.write(fresh, tmp_path)
    assert (tmp_path / "tls.crt").read_bytes() == fresh.server.certificate
