"""Years of certificates: replicas with clocks of their own, and clients that read what to trust once."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs import bundle, pki
from certs.bundle import NOTHING, Bundle

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
YEARS = 12
"""Of which the tenth has a change of the CA, and so has each in which its key is lost."""
NAMES = ("stepmemo.stepmemo.svc",)
TRUSTED_FOR = 30 * DAY
"""So long a client goes by what it has read."""
LONGEST_SLEEP = timedelta(hours=23)
"""Of a replica: an API server may be away for so long."""

# Of pure functions, which are asked the same thousands of times: most of these years would go to signatures.
issuer = lru_cache(maxsize=1000)(pki.issuer)
authorities = lru_cache(maxsize=1000)(pki.authorities)
ends_at = lru_cache(maxsize=1000)(pki.ends_at)
server_flaw = lru_cache(maxsize=1000)(pki.server_flaw)
load_certificate = lru_cache(maxsize=1000)(x509.load_pem_x509_certificate)
load_key = lru_cache(maxsize=1000)(serialization.load_pem_private_key)


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "issuer", lambda certificate, among: issuer(certificate, tuple(among)))
    monkeypatch.setattr(pki, "authorities", authorities)
    monkeypatch.setattr(pki, "ends_at", ends_at)
    monkeypatch.setattr(pki, "server_flaw", server_flaw)
    monkeypatch.setattr(x509, "load_pem_x509_certificate", load_certificate)
    monkeypatch.setattr(serialization, "load_pem_private_key", load_key)


@dataclass
class Replica:
    skew: timedelta
    """Its clock minus the API server's."""
    served: Bundle = NOTHING
    trusted: tuple[bytes, ...] = ()
    """Its file for steps."""
    awake: datetime = BEGIN


@dataclass
class Installation:
    """What two Secrets and a caBundle hold."""

    replicas: list[Replica]
    random: Random
    now: datetime = BEGIN
    """By the API server's clock."""
    stored: Bundle = NOTHING
    ca_bundle: tuple[bytes, ...] = ()
    clients: list[tuple[datetime, tuple[bytes, ...]]] = field(default_factory=list)
    """When each read what it trusts, and what that was."""
    signed: set[bytes | None] = field(default_factory=set)

    def time_passes(self) -> None:
        """A while in which nobody has anything to do, or less than a day."""
        soon = self.now + bundle.NEXT_CA_BEFORE + 30 * DAY
        cas = self.stored.trusted
        is_near = len(cas) > 1 or any(ends_at(ca) < soon for ca in cas)
        self.now += (LONGEST_SLEEP if is_near else 25 * DAY) * self.random.random()
        for replica in self.random.sample(self.replicas, len(self.replicas)):
            if self.now - replica.awake > LONGEST_SLEEP or self.random.random() < 0.3:
                self.wakes(replica)

    def wakes(self, replica: Replica) -> None:
        """What a replica does when it looks, as far as it depends on the time."""
        here, _ = bundle.renewed(self.stored, NAMES, self.now + replica.skew)
        if here != self.stored:
            self.stored, _ = bundle.renewed(self.stored, NAMES, self.now)
        replica.served, replica.awake = self.stored, self.now
        found = b"".join(self.ca_bundle)
        self.ca_bundle = bundle.to_trust(self.stored.trusted, found, self.now + replica.skew)
        replica.trusted = self.ca_bundle
        self.signed.add(self.stored.issuer)

    def the_cas_keys_are_lost(self) -> None:
        """While there is time to make a next CA known before the certificate ends."""
        if ends_at(self.stored.server.certificate) > self.now + 70 * DAY:
            self.stored = replace(self.stored, signers=())

    def somebody_breaks_the_certificate(self) -> None:
        """While we have the key of its CA, and a replica sees it at once."""
        if self.stored.issuer in {ca.certificate for ca in self.stored.signers}:
            self.stored = replace(self.stored, server=NOTHING.server)
            self.wakes(self.random.choice(self.replicas))

    def clients_read(self) -> None:
        """One the caBundle, and one the file of a replica."""
        self.clients = [one for one in self.clients if self.now - one[0] <= TRUSTED_FOR]
        self.clients.append((self.now, self.ca_bundle))
        self.clients.append((self.now, self.random.choice(self.replicas).trusted))

    def everybody_is_trusted(self) -> None:
        read_at = {trusted: when for when, trusted in self.clients}
        for certificate in {replica.served.server.certificate for replica in self.replicas}:
            assert pki.made_at(certificate) <= self.now <= ends_at(certificate)
            for trusted, when in read_at.items():
                assert issuer(certificate, trusted), f"distrusted at {self.now} by who read at {when}"
        assert len(self.stored.trusted) <= 3
        assert len(self.ca_bundle) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_whoever_read_any_bundle_in_the_last_thirty_days_trusts_whatever_is_served(seed: int) -> None:
    random = Random(seed)
    skews = [random.randint(-72, 72) for _ in range(random.randint(1, 3))]
    losses = set(random.sample(range(1, YEARS + 1), random.randint(0, 3)))
    here = Installation([Replica(timedelta(hours=hours)) for hours in skews], random)
    for replica in here.replicas:
        here.wakes(replica)
    while (age := here.now - BEGIN) < YEARS * 365 * DAY:
        here.time_passes()
        if (year := age // (365 * DAY)) in losses:
            losses.remove(year)
            here.the_cas_keys_are_lost()
        if random.random() < 0.1:
            here.somebody_breaks_the_certificate()
        here.clients_read()
        here.everybody_is_trusted()
    assert len(here.signed) >= 2
    assert all(ends_at(ca) > here.now - 4 * DAY for ca in (*here.stored.trusted, *here.ca_bundle))
