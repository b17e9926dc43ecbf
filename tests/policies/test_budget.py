"""One cap, however many spend under it: in one loop, in several processes, after a kill."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.policies.budget import Budget, BudgetExhausted
from pipeline.policies.ledger import LIVING_S, Account, Ledger


def test_calls_wait_for_those_in_flight_to_turn_out_cheaper(tmp_path: Path) -> None:
    async def run() -> tuple[int, float]:
        budget = Budget(1.0, Ledger(tmp_path))
        made = most = in_flight = 0

        async def call() -> None:
            nonlocal made, most, in_flight
            await budget.reserve(0.3)
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.01)
            in_flight -= 1
            made += 1
            budget.settle(0.3, 0.1)

        calls = [asyncio.create_task(call()) for _ in range(20)]
        done = await asyncio.gather(*calls, return_exceptions=True)
        refused = [error for error in done if error is not None]
        assert all(isinstance(error, BudgetExhausted) for error in refused)
        assert most == 3, "three calls fit at their worst"
        await budget.close()
        return made, budget.spent_usd()

    made, spent = asyncio.run(run())
    assert made == 8, "0.7 + 0.3 fits, 0.8 + 0.3 does not"
    assert spent == pytest.approx(0.8)
    assert Ledger(tmp_path).others("").spent_usd == pytest.approx(0.8)


def test_a_call_whose_answer_was_lost_counts_at_its_worst(tmp_path: Path) -> None:
    async def run() -> None:
        budget = Budget(1.0, Ledger(tmp_path))
        await budget.reserve(0.6)
        budget.settle(0.6, 0.0, lost_usd=0.6)
        with pytest.raises(BudgetExhausted, match=r"0\.6000 may have been"):
            await budget.reserve(0.6)
        await budget.close()

    asyncio.run(run())


def test_a_cancelled_reservation_holds_nothing_back(tmp_path: Path) -> None:
    async def run() -> None:
        budget = Budget(1.0, Ledger(tmp_path))
        await budget.reserve(0.8)
        waiting = [asyncio.create_task(budget.reserve(0.5)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        budget.settle(0.8, 0.1)
        await budget.reserve(0.9)
        budget.settle(0.9, 0.9)
        await budget.close()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_what_a_killed_process_had_promised_stays_promised(tmp_path: Path) -> None:
    long_ago = 1.0
    Ledger(tmp_path).write("killed", Account(0.2, 0.5, renewed=long_ago))

    async def run() -> None:
        budget = Budget(1.0, Ledger(tmp_path))
        await budget.reserve(0.3)
        budget.settle(0.3, 0.1)
        with pytest.raises(BudgetExhausted, match=r"0\.3000 dollars are spent, 0\.5000 may have"):
            await budget.reserve(0.3)
        await budget.close()

    asyncio.run(run())
    assert LIVING_S < 120.0, "a rerun soon after a kill must not wait for ever"


_SPENDER = """
import asyncio, random, sys
from pathlib import Path
from pipeline.policies.budget import Budget, BudgetExhausted
from pipeline.policies.ledger import Ledger

async def main(directory):
    budget = Budget(2.0, Ledger(Path(directory)))
    made = 0
    async def call():
        nonlocal made
        await budget.reserve(0.05)
        made += 1
        await asyncio.sleep(random.uniform(0.0, 0.02))
        budget.settle(0.05, 0.04)
    print("ready", flush=True)
    sys.stdin.readline()
    await asyncio.gather(*(call() for _ in range(40)), return_exceptions=True)
    await budget.close()
    print(made, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def test_processes_that_spend_at_the_same_time_keep_one_cap(tmp_path: Path) -> None:
    """Each of three alone would spend 1.6 of 2 dollars."""
    spenders = [
        subprocess.Popen(
            [sys.executable, "-c", _SPENDER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for spender in spenders:
        assert spender.stdout is not None
        assert spender.stdout.readline() == "ready\n"
    told = []
    for spender in spenders:
        assert spender.stdin is not None
        spender.stdin.write("\n")
        spender.stdin.flush()
    for spender in spenders:
        told.append(int(spender.communicate(timeout=120)[0]))
    spent = 0.04 * sum(told)
    assert spent <= 2.0 + 1e-9
    assert spent + 0.05 > 2.0 - 1e-9, f"it stopped too early: {told}"
    assert Ledger(tmp_path).others("").spent_usd == pytest.approx(spent)
    assert Ledger(tmp_path).others("").promised_usd == pytest.approx(0.0, abs=1e-9)
