"""Single flight, whatever happens in whatever order: Pods come, run, end, vanish; keepers come and go."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keeper.single_flight import BLOCKED, Complete, Release, SingleFlight, Wait
from keeper.steppods import GatedStep, Key, Phase
from memoize.entry import Entry, Hit, Miss
from memoize.reasons import Reason
from tests.keeper.gatedsteps import START, gated_step

HOLD = timedelta(seconds=30)
MOST = 4
HIT = Hit(Entry("first", {}, START, None))
SECOND = timedelta(seconds=1)
PLAIN = (Reason.MISS,)
"""Why a Pod runs that nothing else lets run."""

seconds = st.sampled_from([1, 1, 2, 3, 10, 60, 320]).map(lambda n: timedelta(seconds=n))


@dataclass
class Pod:
    """What is true of a Pod, whatever its keeper knows. `ask`: when its turn is due, at the latest."""

    seen: GatedStep
    ask: datetime
    heard: datetime
    """When this keeper first heard of it, by a clock that may be behind the one that made it."""
    stuck: datetime | None = None
    """Requests to release it fail until then."""
    told: bool = False
    waited: bool = False
    """It was told to wait, by this keeper."""

    @property
    def limit(self) -> datetime:
        patience = min(timedelta(minutes=10), self.seen.until - self.seen.created_at)
        return min(self.seen.created_at, self.heard) + patience


class Keeper(RuleBasedStateMachine):
    """A keeper that does what its table says, in a world that does as it likes."""

    @initialize()
    def begin(self) -> None:
        self.now = START
        self.count = 0
        self.pods: dict[str, Pod] = {}
        self.entries: dict[Key, datetime] = {}
        """When an entry can be seen."""
        self.failures: dict[Key, datetime] = {}
        self.ended: set[str] = set()
        """Runners whose deletion this table has been told of: it counted as their end."""
        self.deaf: set[Key] = set()
        """Keys whose look-up fails."""
        self.useless: set[Key] = set()
        """Keys whose entries answer nobody."""
        self.flights = self.table()

    def table(self) -> SingleFlight:
        return SingleFlight(gate_timeout=HOLD, timeout=timedelta(minutes=10), max_waiters=lambda _: MOST)

    # --- the world ---------------------------------------------------------------------------------

    @rule(
        place=st.sampled_from("kl"),
        namespace=st.sampled_from(["default", "other"]),
        phase=st.sampled_from([Phase.GATED, Phase.GATED, Phase.GATED, Phase.RUNNING]),
        share=st.sampled_from([True, True, True, False]),
        capture=st.sampled_from([True, True, True, False]),
        patience=st.sampled_from([20, 600, 10_000]),
        behind=st.sampled_from([0, 0, 60]),
    )
    def create(
        self, place: str, namespace: str, phase: Phase, share: bool, capture: bool, patience: int, behind: int
    ) -> None:
        created_at = self.now + timedelta(seconds=behind)
        self.count += 1
        uid = f"{(self.count * 7919) % 1000:03}-{self.count}"
        self.pods[uid] = Pod(
            gated_step(
                uid,
                place=place,
                namespace=namespace,
                phase=phase,
                share=share,
                capture=capture,
                created_at=created_at,
                until=created_at + timedelta(seconds=patience),
            ),
            ask=self.now,
            heard=self.now,
        )
        self.see(uid)

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), how=st.sampled_from(["stored", "failed", "deleted", "deleting", "over"]))
    def end(self, data: st.DataObject, how: str) -> None:
        ran = sorted(uid for uid, pod in self.pods.items() if pod.seen.phase is not Phase.GATED)
        if not ran:
            return
        uid = data.draw(st.sampled_from(ran))
        pod = self.pods[uid]
        if how == "over":
            self.change(uid, phase=Phase.OVER)
            return
        if how == "deleting":
            led = uid in self.leading(pod.seen.key)
            self.change(uid, deleting=True)
            if led and pod.seen.phase is Phase.RUNNING:
                self.failures[pod.seen.key] = self.now
                self.ended.add(uid)
            return
        self.change(uid, phase=Phase.OVER)
        if how == "stored" and pod.seen.plan.capture:
            visible = data.draw(st.sampled_from([timedelta(), SECOND]))
            self.entries.setdefault(pod.seen.key, self.now + visible)
            self.due(self.flights.on_stored(uid, self.now))
        else:
            self.fails(uid)
            if how == "failed":
                self.due(self.flights.on_failed(uid, self.now))
        self.remove(uid)

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def delete_held(self, data: st.DataObject) -> None:
        held = self.held()
        if held:
            uid = data.draw(st.sampled_from(held))
            if self.pods[uid].told:
                self.fails(uid)
            self.remove(uid)

    @rule(place=st.sampled_from("kl"), deaf=st.booleans())
    def hear(self, place: str, deaf: bool) -> None:
        key = Key("default", "memo", place)
        (self.deaf.add if deaf else self.deaf.discard)(key)

    @rule(place=st.sampled_from("kl"))
    def disappoint(self, place: str) -> None:
        self.useless.add(Key("default", "memo", place))

    @rule(place=st.sampled_from("kl"), namespace=st.sampled_from(["default", "other"]))
    def expire(self, place: str, namespace: str) -> None:
        self.entries.pop(Key(namespace, "memo", place), None)

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """The table is lost; the Pods are seen again, in any order."""
        self.flights = self.table()
        self.failures.clear()
        self.ended.clear()
        for uid in data.draw(st.permutations(sorted(self.pods))):
            pod = self.pods[uid]
            pod.told = pod.waited = False
            pod.ask = pod.heard = self.now
            self.see(uid)

    @precondition(lambda self: self.held())
    @rule(data=st.data(), time=seconds)
    def refuse(self, data: st.DataObject, time: timedelta) -> None:
        self.pods[data.draw(st.sampled_from(self.held()))].stuck = self.now + time

    @rule(time=seconds)
    def wait(self, time: timedelta) -> None:
        """Time passes; whoever's turn is due is asked then."""
        self.advance(self.now + time)

    @rule(data=st.data())
    def ask_anyone(self, data: st.DataObject) -> None:
        if self.held():
            self.ask(data.draw(st.sampled_from(self.held())))

    # --- the keeper --------------------------------------------------------------------------------

    def advance(self, until: datetime) -> None:
        while True:
            held = self.held()
            soonest = min((self.pods[uid].ask for uid in held), default=until)
            if soonest > until:
                break
            self.now = max(self.now, soonest)
            due = [uid for uid in held if self.pods[uid].ask <= self.now]
            if not due:
                break
            for uid in due:
                self.ask(uid)
        self.now = until

    def held(self) -> list[str]:
        return sorted(uid for uid, pod in self.pods.items() if pod.seen.phase is Phase.GATED)

    def due(self, uids: object) -> None:
        for uid in uids:  # type: ignore[attr-defined]
            if uid in self.pods:
                self.pods[uid].ask = self.now

    def see(self, uid: str) -> None:
        self.due(self.flights.on_pod(self.pods[uid].seen, self.now))

    def change(self, uid: str, phase: Phase | None = None, deleting: bool = False) -> None:
        seen = self.pods[uid].seen
        self.pods[uid].seen = gated_step(
            uid,
            place=seen.key.data_key,
            namespace=seen.namespace,
            phase=phase or seen.phase,
            share=seen.plan.share,
            capture=seen.plan.capture,
            created_at=seen.created_at,
            until=seen.until,
            deleting=deleting or seen.deleting,
        )
        self.see(uid)

    def remove(self, uid: str) -> None:
        del self.pods[uid]
        self.due(self.flights.on_deleted(uid, self.now))

    def fails(self, uid: str) -> None:
        pod = self.pods[uid]
        if pod.seen.may_run_for_others and uid not in self.ended:
            self.failures[pod.seen.key] = self.now

    def leading(self, key: Key) -> list[str]:
        """Whoever of the key runs, or was told to, and will be stored as far as can be seen."""
        return [
            uid
            for uid, pod in self.pods.items()
            if pod.seen.key == key
            and pod.seen.may_run_for_others
            and (pod.told or pod.seen.phase is not Phase.GATED)
            and not (pod.seen.deleting and pod.seen.phase is Phase.RUNNING)
        ]

    def known(self, key: Key) -> Hit | Miss | None:
        if key in self.deaf:
            return None
        visible = self.entries.get(key)
        answers = visible is not None and visible <= self.now and key not in self.useless
        return HIT if answers else Miss(Reason.MISS)

    def ask(self, uid: str) -> None:
        pod = self.pods[uid]
        key = pod.seen.key
        known = self.known(key)
        others = [other for other in self.leading(key) if other != uid]
        decided = self.flights.decide(pod.seen, known, self.now)
        if isinstance(decided, Wait):
            assert self.now < decided.until <= pod.limit
            if isinstance(known, Miss):
                pod.waited = True
                assert pod.seen.plan.share
                blocked = self.failures.get(key)
                assert blocked is None or self.now >= blocked + BLOCKED, "a blocked key is shared"
                following = [
                    other
                    for other, seen in self.pods.items()
                    if seen.waited and not seen.told and seen.seen.namespace == pod.seen.namespace
                ]
                assert len(following) <= MOST
            assert not isinstance(known, Hit)
            pod.ask = decided.until
        elif isinstance(decided, Complete):
            assert isinstance(known, Hit)
            assert not pod.told, "a Pod that may run is answered"
            self.remove(uid)
        else:
            assert isinstance(decided, Release), "a held Pod is left to itself"
            first = not pod.told
            pod.told = True
            if first and pod.seen.may_run_for_others and decided.outcome == (Reason.MISS, "") and others:
                blocked = self.failures.get(key)
                useless = key in self.useless or key in self.entries
                assert useless or (blocked is not None and self.now < blocked + BLOCKED), "two lead"
            if pod.stuck is not None and self.now < pod.stuck:
                pod.ask = self.now + SECOND
            else:
                self.change(uid, phase=Phase.RUNNING)

    @invariant()
    def the_end_of_a_runner_wakes_its_waiters(self) -> None:
        for key, failed in self.failures.items():
            if failed == self.now:
                waiting = [self.pods[uid] for uid in self.held() if self.pods[uid].seen.key == key]
                assert all(pod.told or key in self.deaf or pod.ask <= self.now for pod in waiting)

    @invariant()
    def nobody_is_stranded(self) -> None:
        for uid in self.held():
            pod = self.pods[uid]
            assert pod.ask <= max(self.now, pod.limit) + SECOND
            if pod.ask > self.now and not pod.told:
                assert self.now < pod.limit, "a Pod is held beyond its limit"

    def teardown(self) -> None:
        if not hasattr(self, "now"):
            return
        for pod in self.pods.values():
            pod.stuck = None
        self.advance(self.now + timedelta(minutes=11))
        assert self.held() == []
        for uid in sorted(self.pods):
            self.remove(uid)
        table = vars(self.flights)
        for part in ("_flights", "_keys", "_ended", "_waiters"):
            assert not table[part], f"{part} grows"


TestAnyFlight = Keeper.TestCase
QUICK = settings.default.max_examples < 100
TestAnyFlight.settings = settings(max_examples=25 if QUICK else 150, stateful_step_count=40)
