"""A cap on dollars that holds while many calls are in flight, in one process or in several.

What a call will cost is known only when it is over, so each reserves its worst case first. A call
that does not fit waits for those in flight to turn out cheaper; where none is in flight and it
still does not fit, it could break the cap, and the budget is exhausted.

Several processes keep one cap without a lock: each announces what it wants in its own account of
the ledger, and only then looks at the accounts of the others. Of two that ask at the same moment,
at least the later one sees both; what does not fit is withdrawn, and asked for again after a while.
"""

import asyncio
import logging
import math
import os
import random
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass

from pipeline.files import StoreError
from pipeline.policies.ledger import LIVING_S, Account, Ledger, Others
from pipeline.policies.protocol import PolicyError

logger = logging.getLogger(__name__)

_LOOK_S = 1.0  # between two looks at the accounts of others
_WRITE_S = 0.2  # between two writes of what was settled


class BudgetExhausted(PolicyError):
    """The next call could break the cap; every call made before is over and recorded."""


@dataclass(eq=False, slots=True)
class _Asking:
    worst_usd: float
    granted: bool = False


class Budget:
    """Dollars spent and promised against a cap (None: no cap). Belongs to one event loop."""

    def __init__(self, cap_usd: float | None, ledger: Ledger) -> None:
        self._cap_usd = cap_usd
        self._ledger = ledger
        self._spender = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._spent_usd = self._promised_usd = self._lost_usd = 0.0
        self._calls = 0
        self._waiting: list[_Asking] = []
        self._turn = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._settled = asyncio.Event()
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def spent_usd(self) -> float:
        """By this process, and by all others that the ledger knows."""
        return self._spent_usd + self._ledger.others(self._spender).spent_usd

    async def room_usd(self) -> float:
        """What could be reserved now; infinite without a cap."""
        if self._cap_usd is None:
            return math.inf
        others = await asyncio.to_thread(self._ledger.others, self._spender)
        return self._cap_usd - self._taken(others)

    async def reserve(self, worst_usd: float) -> None:
        """Promise a call its worst case; `settle` must follow. Raises BudgetExhausted, and
        PolicyError where the promise cannot be recorded."""
        asking = _Asking(worst_usd)
        if self._cap_usd is None:
            self._promise([asking])
            return
        self._waiting.append(asking)
        try:
            async with self._turn:  # who has it asks for all who wait
                while not asking.granted:
                    await self._grant(self._cap_usd)
        except BaseException:
            if asking.granted:
                self.settle(worst_usd, 0.0)
            else:
                self._waiting.remove(asking)
            raise

    def settle(self, worst_usd: float, paid_usd: float, lost_usd: float = 0.0) -> None:
        """A call is over: it cost `paid_usd`, and may have cost `lost_usd` more."""
        self._calls -= 1
        self._promised_usd = self._promised_usd - worst_usd if self._calls else 0.0
        self._spent_usd += paid_usd
        self._lost_usd += lost_usd
        self._settled.set()
        self._keep()

    async def record(self) -> None:
        """Have the account on disk as it is, without waiting for the next regular write."""
        try:
            await self._write()
        except (StoreError, OSError) as error:  # a full disk: the next write tells it all
            logger.warning("spending cannot be recorded now: %s", error)

    async def close(self) -> None:
        """Record the end. Every call must be settled."""
        self._closing.set()
        self._changed.set()
        if self._keeper is not None:
            await self._keeper
            await self._write()

    async def _grant(self, cap_usd: float) -> None:
        others = await asyncio.to_thread(self._ledger.others, self._spender)
        asking: list[_Asking] = []
        room = cap_usd - self._taken(others)
        for each in self._waiting:
            room -= each.worst_usd
            if room < 0:
                break
            asking.append(each)
        if not asking:
            await self._wait_for_room(cap_usd, others)
            return
        self._promise(asking)
        try:
            await self._write()
            others = await asyncio.to_thread(self._ledger.others, self._spender)
        except BaseException as error:
            for each in asking:
                self.settle(each.worst_usd, 0.0)
            if isinstance(error, StoreError | OSError):
                raise PolicyError(f"spending cannot be recorded: {error}") from error
            raise
        while asking and self._taken(others) > cap_usd:
            self.settle(asking.pop().worst_usd, 0.0)
        for each in asking:
            if each in self._waiting:
                self._waiting.remove(each)
                each.granted = True
            else:  # it was cancelled meanwhile
                self.settle(each.worst_usd, 0.0)
        if not asking:
            await asyncio.sleep(random.uniform(0.1, 0.5))  # two got in each other's way

    async def _wait_for_room(self, cap_usd: float, others: Others) -> None:
        if self._calls == 0 and not others.settling:
            spent, next_usd = self._spent_usd + others.spent_usd, self._waiting[0].worst_usd
            promised = self._lost_usd + others.promised_usd
            unknown = (
                f", {promised:.4f} may have been: by batches under way and by calls whose answer "
                "was lost"
                if promised
                else ""
            )
            raise BudgetExhausted(
                f"budget_usd is {cap_usd}, {spent:.4f} dollars are spent{unknown}; the next call "
                f"could cost {next_usd:.4f}: raise budget_usd and run again; nothing is paid for "
                "twice"
            )
        self._settled.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), _LOOK_S if others.settling else None)

    def _taken(self, others: Others) -> float:
        mine = self._spent_usd + self._promised_usd + self._lost_usd
        return mine + others.spent_usd + others.promised_usd

    def _promise(self, asking: list[_Asking]) -> None:
        self._promised_usd += sum(each.worst_usd for each in asking)
        self._calls += len(asking)
        self._keep()

    def _keep(self) -> None:
        """See to it that the account follows, and stays renewed while calls are in flight."""
        self._changed.set()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_account())

    async def _keep_account(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LIVING_S / 3 if self._calls else None)
            self._changed.clear()
            await self.record()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _WRITE_S)

    async def _write(self) -> None:
        async with self._writing:
            account = Account(
                self._spent_usd, self._promised_usd + self._lost_usd, renewed=time.time()
            )
            await asyncio.to_thread(self._ledger.write, self._spender, account)
