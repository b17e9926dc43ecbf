"""A cap on dollars that holds while many calls are in flight.

What a call will cost is known only when it is over, so each reserves its worst case first. A call
that does not fit waits for those in flight to turn out cheaper; where none is in flight and it
still does not fit, it could break the cap, and the budget is exhausted.
"""

import asyncio

from pipeline.policies.protocol import PolicyError


class BudgetExhausted(PolicyError):
    """The next call could break the cap; every call made before is over and recorded."""


class Budget:
    """Dollars spent and promised against a cap (None: no cap). Belongs to one event loop."""

    def __init__(self, cap_usd: float | None, spent_usd: float) -> None:
        self.spent_usd = spent_usd
        self._cap_usd = cap_usd
        self._promised_usd = 0.0
        self._calls = 0
        self._settled = asyncio.Condition()

    async def reserve(self, worst_usd: float) -> None:
        """Promise a call its worst case; `settle` must follow. Raises BudgetExhausted."""
        async with self._settled:
            while self._breaks(worst_usd):
                if self._calls == 0:
                    raise BudgetExhausted(
                        f"budget_usd is {self._cap_usd}, {self.spent_usd:.4f} dollars are spent "
                        f"and the next call could cost {worst_usd:.4f}: raise budget_usd and run "
                        "again; nothing is paid for twice"
                    )
                await self._settled.wait()
            self._promised_usd += worst_usd
            self._calls += 1

    async def settle(self, worst_usd: float, paid_usd: float) -> None:
        """A call is over, and cost `paid_usd`."""
        async with self._settled:
            self._calls -= 1
            self._promised_usd = self._promised_usd - worst_usd if self._calls else 0.0
            self.spent_usd += paid_usd
            self._settled.notify_all()

    def _breaks(self, worst_usd: float) -> bool:
        if self._cap_usd is None:
            return False
        return self.spent_usd + self._promised_usd + worst_usd > self._cap_usd
