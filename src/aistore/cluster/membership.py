"""How nodes agree: leases, the root document, and when a map of homes is settled. Runs in the controller of each node.

The rules, each with what it is for:

- A holder acts until the time at which it *sent* its last acknowledged renewal plus nine tenths of a lease. Observers
  count a whole lease from when they last *saw a change*, which is later, each on its own clock; wall clocks are never
  compared, and a tenth of a lease is more than clocks differ in their rate.
- A lease shows which version of the root document all of its node's processes have adopted. A holder whose lease has
  lapsed renews it first, reads the root document then, and acts only if that is the version that its lease shows: who
  saw the lapse before has changed the document before too, and who looks later sees the lease.
- An epoch is settled when each node that was a home since the last settled one has said that it adopted the epoch, or
  is seen to have lapsed by a listing begun after the observer adopted it. From then on nobody acts on an older map.
- Whoever finds a lease lapsed takes its node out of the map, which begins an epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from msgspec import structs

from ..errors import (
    AisError,
    BackendUnavailableError,
    BadRequestError,
    ConflictError,
    InternalError,
    RetryLaterError,
    StaleConditionError,
    StoredNotFoundError,
)
from ..storage.objectstore.contract import ABSENT
from .documents import (
    LEASE_SECONDS,
    LEASES,
    ROOT_KEY,
    Lease,
    NodeRecord,
    RootDocument,
    check_follows,
    decode_lease,
    decode_root,
    encode_lease,
    encode_root,
    lease_key,
    new_root,
    with_node,
)
from .view import View
from .world import Clock, Others, Store, Workers

_log = logging.getLogger("aistore.cluster")

#: The part of a lease in which its holder acts.
_HOLDER_PART = 0.9
_LIST_LIMIT = 1000
_PUT_BACK = "put back what was there; nothing can be changed until then"

#: Makes the next root document of the current one. May be called several times, and again after it had its effect
#: already without anybody knowing; returns None, or what it was given, where nothing is left to do.
Mutate = Callable[[RootDocument], "RootDocument | None"]


@dataclass(frozen=True, slots=True)
class Times:
    """How often things are done, in seconds."""

    #: How long a lease holds, and how often it is renewed.
    lease: float = 30.0
    renew: float = 10.0
    #: How often the root document is read, beside when another node says that it changed.
    poll: float = 5.0
    #: How long one call of the store may take.
    call: float = 8.0
    #: How often leases are listed while an epoch is not settled.
    hurry: float = 1.0


@dataclass(slots=True)
class _Seen:
    etag: str
    changed: float


@dataclass(frozen=True, slots=True)
class _Listing:
    """Leases as of ``begun``: which there were, and the version that this node had adopted before it asked."""

    begun: float
    adopted: int
    present: frozenset[str]


@dataclass(slots=True)
class Self:
    """Which node this is: its id, the start of it that this is, and where others reach it."""

    id: str
    incarnation: str
    url: str
    started_ns: int = 0
    draining: bool = field(default=False)


async def _nothing(view: View) -> None:
    return


class Membership:
    """One node's part in the cluster."""

    def __init__(
        self, me: Self, clock: Clock, store: Store, others: Others, workers: Workers, times: Times,
        prepare: Callable[[View], Awaitable[None]] = _nothing,
    ) -> None:  # fmt: skip
        self._me = me
        self._clock = clock
        self._store = store
        self._others = others
        self._workers = workers
        self.times = times
        self._prepare = prepare
        self._root: RootDocument | None = None
        self._etag = ""
        self._counter = 0
        self._deadline = float("-inf")
        self._adopted = 0
        self._settled = 0
        self._epoch = 0
        self._epoch_version = 0
        self._seen: dict[str, _Seen] = {}
        self._shown: dict[str, int] = {}
        self._listing: _Listing | None = None
        self._member = False
        self._leaving = False
        self._adopting = asyncio.Lock()
        self._renewing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._callbacks: list[Callable[[View], None]] = []
        self.view: View | None = None
        self.lost: AisError | None = None

    # What the rest of the controller uses.

    async def start(self) -> None:
        """Join the cluster, making it if this is its first node; returns when this node's map has it as a home."""
        # Workers may still act on what an earlier controller let them: without its lease nobody would wait for them.
        self._extend(float("-inf"))
        await self._drop_old_leases()
        await self._put_lease()
        await self._refresh()
        assert self.view is not None
        await self._prepare(self.view)
        await self._put_lease()  # that may have taken longer than a lease
        await self._join()
        await self.renew()
        self._clock.spawn(self._keep_renewing(), "renew the lease")
        self._clock.spawn(self._keep_watching(), "watch the cluster")

    async def leave(self) -> None:
        """Hand this node's objects over and end its lease; what is cached stays for the next start."""
        self._leaving = True
        try:
            await self.change(lambda root: with_node(root, self._me.id, None, self._settled))
            await self._refresh()
        finally:
            self._deadline = float("-inf")
            self._workers.publish(self._deadline)
            await self._store.delete(self._lease, self.times.call)

    def on_view(self, callback: Callable[[View], None]) -> None:
        """Call ``callback`` with every view that this node has adopted from now on."""
        self._callbacks.append(callback)

    async def change(self, mutate: Mutate) -> int:
        """Change the root document and return the version that has the change; raises what ``mutate`` raises."""
        pause = 0.01
        while True:
            root, etag = await self._read_root()
            wanted = mutate(root)
            if wanted is None or wanted == root:
                return root.version
            wanted = structs.replace(wanted, version=root.version + 1)
            try:
                await self._store.put(ROOT_KEY, encode_root(wanted), {}, etag, self.times.call)
            except (StaleConditionError, RetryLaterError) as error:
                if not isinstance(error, StaleConditionError):
                    _log.warning("the root document could not be written, trying again: %s", error.message)
                await self._clock.sleep(pause)
                pause = min(1.0, 2 * pause)
            else:
                self._wake.set()
                return wanted.version

    async def barrier(self, version: int, seconds: float) -> list[str]:
        """Wait until every live node has adopted ``version``; return the ids of those that have not after ``seconds``.

        A node that does not say so is waited for until its lease has lapsed.
        """
        until = self._clock.now() + seconds
        while True:
            await self._refresh(at_least=version)
            waiting = self._waiting_for(version, self._all_nodes())
            if not waiting:
                return []
            await self._ask(waiting, version)
            waiting = self._waiting_for(version, self._all_nodes())
            if not waiting or self._clock.now() >= until:
                return sorted(waiting)
            await self._pause(0.05)
            await self._list_leases()

    async def asked(self, version: int) -> tuple[str, int]:
        """Adopt ``version`` at least, if it can be done now; return this incarnation and what is adopted."""
        if self._adopted < version:
            await self._refresh(at_least=version)
        return self._me.incarnation, self._adopted

    @property
    def lease_seconds_left(self) -> float:
        """How long this node may act without another renewal; below zero when it may not."""
        return self._deadline - self._clock.now()

    @property
    def adopted(self) -> int:
        """The version of the root document that all processes of this node run on."""
        return self._adopted

    def states(self) -> dict[str, str]:
        """Return what this node thinks of each node of the map: ``online``, ``draining``, ``late``, ``lapsed``."""
        states: dict[str, str] = {}
        if self._root is None:
            return states
        for node, record in self._root.nodes.items():
            states[node] = "draining" if record.draining else "online"
            if node == self._me.id:
                states[node] = states[node] if self.lease_seconds_left > 0 else "lapsed"
            elif self._is_lapsed(node, record.incarnation):
                states[node] = "lapsed"
            elif (age := self._age(lease_key(node, record.incarnation))) is not None and age > 2 * self.times.renew:
                states[node] = "late"
        return states

    # The lease.

    @property
    def _lease(self) -> str:
        return lease_key(self._me.id, self._me.incarnation)

    async def _put_lease(self) -> tuple[float, int]:
        """Write the lease; return when it was sent and the version it shows."""
        self._counter += 1
        version, sent = self._adopted, self._clock.now()
        lease = Lease(self._me.id, self._me.incarnation, self._counter, version, self._me.url)
        await self._store.put(self._lease, encode_lease(lease), {}, None, self.times.call)
        return sent, version

    async def renew(self) -> None:
        """Renew the lease; if it had lapsed, act again only on the newest map."""
        async with self._renewing:
            while not self._leaving:
                sent, version = await self._put_lease()
                if self._clock.now() < self._deadline:
                    break
                if await self._is_current(version):
                    break
            else:
                return
            self._extend(sent)

    async def _is_current(self, version: int) -> bool:
        """Read the root document, adopt it, come back into it; say whether nothing changed since ``version``."""
        await self._refresh()
        await self._stay()
        return self._adopted == version

    async def _stay(self) -> None:
        """Come back into a map that others took this node out of; raises ConflictError when it is not wanted."""
        assert self._root is not None
        record = self._root.nodes.get(self._me.id)
        if (record is None or record.incarnation != self._me.incarnation) and not self._leaving:
            await self._join()

    def _extend(self, sent: float) -> None:
        self._deadline = sent + _HOLDER_PART * self.times.lease
        self._workers.publish(self._deadline)

    async def _keep_renewing(self) -> None:
        while not self._leaving:
            pause = self.times.renew
            try:
                await self.renew()
            except RetryLaterError as error:
                _log.warning("the lease could not be renewed: %s", error.message)
                pause = self.times.renew / 5
            except AisError as error:
                self._give_up(error)
                return
            await self._clock.sleep(pause)

    def _give_up(self, error: AisError) -> None:
        """Stop acting for good: this node is not, or should not be, a part of the cluster any more."""
        _log.error("%s (%s)", error.message, error.hint)
        self.lost = error
        self._leaving = True
        self._deadline = float("-inf")
        self._workers.publish(self._deadline)

    async def _drop_old_leases(self) -> None:
        """Remove leases of earlier starts of this node: whoever has its cache directory knows that they are over."""
        page = await self._store.list(f"{LEASES}{self._me.id}.")
        for entry in page.entries:
            if entry.key != self._lease:
                await self._store.delete(entry.key, self.times.call)

    # The root document.

    async def _read_root(self) -> tuple[RootDocument, str]:
        """Return the newest root document and its ETag, making the first one.

        Raises BackendUnavailableError while it is gone or no document: nobody can change it then, so what is known of
        it holds. Raises ConflictError where somebody put another one in its place: nobody knows who acts on it.
        """
        while True:
            known = self._root
            try:
                body = await self._store.get(ROOT_KEY, self._etag)
            except StoredNotFoundError:
                if known is not None:
                    raise BackendUnavailableError(f"{ROOT_KEY} is gone from the store", hint=_PUT_BACK) from None
                try:
                    await self._store.put(ROOT_KEY, encode_root(new_root()), {}, ABSENT, self.times.call)
                except (StaleConditionError, RetryLaterError):
                    await self._clock.sleep(0.05)  # another node made it, or nobody knows: look again
                continue
            if body is None:
                assert self._root is not None
                return self._root, self._etag
            try:
                root = decode_root(bytes(body.read()), ROOT_KEY)
            except BadRequestError as error:
                if known is None:
                    raise
                raise BackendUnavailableError(error.message, hint=_PUT_BACK) from error
            if known is not None:
                check_follows(root, known)
            if self._root is None or root.version > self._root.version:
                self._root, self._etag = root, body.info.etag
            return root, body.info.etag

    async def _join(self) -> None:
        me = self._me

        def join(root: RootDocument) -> RootDocument | None:
            if self._leaving:
                return None
            found = root.nodes.get(me.id)
            if root.removed.get(me.id) == me.incarnation:
                raise ConflictError(f"node {me.id} was removed from the cluster", hint="start it again to let it join")
            if found is not None and found.incarnation != me.incarnation and self._member:
                raise ConflictError(
                    f"another process runs as node {me.id}", hint="give each node a cache directory of its own"
                )
            # Observers of a shorter lease would think a holder of a longer one gone while it acts.
            lease = root.settings.get(LEASE_SECONDS, self.times.lease)
            if lease != self.times.lease and root.nodes.keys() - {me.id}:
                raise ConflictError(
                    f"the nodes of this cluster have leases of {lease:g} s, node {me.id} of {self.times.lease:g} s",
                    hint=f"start it with --lease {lease:g}; another lease needs all nodes stopped first",
                )
            removed = {node: start for node, start in root.removed.items() if node != me.id}
            root = structs.replace(root, settings={**root.settings, LEASE_SECONDS: self.times.lease})
            record = NodeRecord(me.url, me.incarnation, me.draining or bool(found and found.draining), me.started_ns)
            return structs.replace(with_node(root, me.id, record, self._settled), removed=removed)

        await self.change(join)
        self._member = True
        await self._refresh()

    async def _refresh(self, at_least: int = 0) -> None:
        """Read the root document and have all processes of this node adopt it, if it is new."""
        if at_least and self._adopted >= at_least:
            return
        async with self._adopting:
            root, _ = await self._read_root()
            if root.version <= self._adopted:
                return
            if root.epoch != self._epoch:
                self._epoch, self._epoch_version = root.epoch, root.version
            await self._hand_out(root)
            self._adopted = root.version

    async def _hand_out(self, root: RootDocument) -> None:
        self._settled = max(self._settled, root.settled)
        view = View(root, self._me.id, self._settled)
        await self._workers.adopt(view)
        self.view = view
        for callback in self._callbacks:
            callback(view)

    # The others.

    async def _keep_watching(self) -> None:
        """Follow the root document and the leases, settle epochs, take lapsed nodes out of the map."""
        polled = listed = float("-inf")
        while not self._leaving:
            try:
                self._wake.clear()
                before = self._adopted
                await self._refresh()
                # Who saw the lease lapse may write so after it was renewed and the document read again.
                await self._stay()
                polled = self._clock.now()
                if self._adopted != before:
                    await self.renew()  # shows the others what they may be waiting for
                if not self._is_settled or self._clock.now() - listed >= self.times.renew:
                    await self._ask(
                        self._waiting_for(self._epoch_version, self._homes_since_settled()), self._epoch_version
                    )
                    await self._list_leases()
                    listed = self._clock.now()
                    await self._settle()
                    await self._bury()
            except RetryLaterError as error:
                _log.warning("the cluster cannot be watched: %s", error.message)
                await self._clock.sleep(self.times.hurry)  # else it would be asked without a pause
            except StaleConditionError:
                pass  # somebody else was quicker
            except AisError as error:
                self._give_up(error)
                return
            now = self._clock.now()
            due = (
                self.times.hurry
                if not self._is_settled
                else min(polled + self.times.poll, listed + self.times.renew) - now
            )
            await self._pause(max(0.02, due))

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until something is to be done."""
        waiting = asyncio.ensure_future(self._wake.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((waiting, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()

    def wake(self) -> None:
        """Look at the root document soon."""
        self._wake.set()

    async def _list_leases(self) -> None:
        """Note which leases there are and which have changed; read those of which more has to be known."""
        begun, adopted = self._clock.now(), self._adopted
        present: set[str] = set()
        after = ""
        while True:
            page = await self._store.list(LEASES, after, _LIST_LIMIT)
            for entry in page.entries:
                present.add(entry.key)
                seen = self._seen.get(entry.key)
                if seen is None or seen.etag != entry.etag:
                    self._seen[entry.key] = _Seen(entry.etag, self._clock.now())
            after = page.continuation
            if not after:
                break
        self._listing = _Listing(begun, adopted, frozenset(present))
        self._seen = {key: seen for key, seen in self._seen.items() if key in present}
        if not self._is_settled:
            for key in self._waiting_for_homes().values():
                await self._read_lease(key)

    async def _read_lease(self, key: str) -> None:
        try:
            body = await self._store.get(key)
        except StoredNotFoundError:
            return
        assert body is not None
        try:
            self._note(key, decode_lease(bytes(body.read())).version)
        except InternalError as error:  # it says nothing; its holder writes it again, or it lapses
            _log.warning("%s: %s", key, error.message)

    def _note(self, key: str, version: int) -> None:
        self._shown[key] = max(version, self._shown.get(key, 0))

    async def _ask(self, nodes: Mapping[str, str], version: int) -> None:
        """Ask nodes what they have adopted, side by side; who does not answer is seen by its lease."""
        root = self._root
        assert root is not None

        async def ask(node: str, key: str) -> None:
            record = root.nodes.get(node)
            if record is None:
                return
            try:
                incarnation, adopted = await self._others.adopted(node, record, version)
            except AisError:
                return
            self._note(lease_key(node, incarnation), adopted)

        await asyncio.gather(*(ask(node, key) for node, key in nodes.items()))

    def _all_nodes(self) -> dict[str, str]:
        """Return the nodes of the map with the key of each one's lease."""
        assert self._root is not None
        return {node: lease_key(node, record.incarnation) for node, record in self._root.nodes.items()}

    def _homes_since_settled(self) -> dict[str, str]:
        """Return all nodes that were a home since the last settled epoch, with the key of each one's lease."""
        root = self._root
        assert root is not None
        homes: dict[str, str] = {}
        for epoch in root.history:
            if epoch.number >= self._settled:
                homes.update(epoch.homes)
        now = root.nodes
        return {
            node: lease_key(node, now[node].incarnation if node in now else incarnation)
            for node, incarnation in homes.items()
        }

    def _waiting_for(self, version: int, nodes: Mapping[str, str]) -> dict[str, str]:
        """Return those of ``nodes`` that neither said that they adopted ``version`` nor have lapsed since it was."""
        return {
            node: key
            for node, key in nodes.items()
            if node != self._me.id and self._shown.get(key, 0) < version and not self._is_over(key, version)
        }

    def _waiting_for_homes(self) -> dict[str, str]:
        return self._waiting_for(self._epoch_version, self._homes_since_settled())

    def _is_over(self, key: str, version: int) -> bool:
        """Say whether a lease is seen to be over by a listing begun when this node had adopted ``version``."""
        listing = self._listing
        if listing is None or listing.adopted < version:
            return False
        if key not in listing.present:
            return True  # ended by its holder
        return listing.begun - self._seen[key].changed >= self.times.lease

    def _age(self, key: str) -> float | None:
        seen = self._seen.get(key)
        return None if seen is None else self._clock.now() - seen.changed

    def _is_lapsed(self, node: str, incarnation: str) -> bool:
        return self._is_over(lease_key(node, incarnation), 0)

    @property
    def _is_settled(self) -> bool:
        return self._settled >= self._epoch

    async def _settle(self) -> None:
        """Note that the epoch is settled, when it is."""
        if self._is_settled or self._adopted < self._epoch_version:
            return
        if self._waiting_for_homes():
            return
        async with self._adopting:
            assert self.view is not None
            if self.view.epoch != self._epoch:
                return
            self._settled = self._epoch
            await self._hand_out(self.view.root)

    async def _bury(self) -> None:
        """Take nodes out of the map whose leases have lapsed: the first of the living at once, the others later."""
        listing, root = self._listing, self.view.root if self.view is not None else None
        if listing is None or root is None or self.lease_seconds_left <= 0 or listing.adopted < root.version:
            return
        lapsed = {
            node: record.incarnation for node, record in root.nodes.items()
            if node != self._me.id and self._is_lapsed(node, record.incarnation)
        }  # fmt: skip
        if not lapsed:
            return
        living = sorted(node for node in root.nodes if node not in lapsed)
        patience = self.times.lease + living.index(self._me.id) * self.times.hurry if self._me.id in living else 0.0
        for node, incarnation in lapsed.items():
            seen = self._seen.get(lease_key(node, incarnation))
            if seen is not None and listing.begun - seen.changed < patience:
                continue
            _log.warning("node %s has not renewed its lease: its objects move to the others", node)

            def take_out(root: RootDocument, node: str = node, incarnation: str = incarnation) -> RootDocument | None:
                found = root.nodes.get(node)
                if found is None or found.incarnation != incarnation:
                    return None
                return with_node(root, node, None, self._settled)

            await self.change(take_out)
