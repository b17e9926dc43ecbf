"""The workers that ask a policy: many parts at once on one event loop."""

import asyncio
from collections.abc import Iterable
from typing import Any

from pipeline import rollouts, sampling
from pipeline.attempts import UNPLACED, Place
from pipeline.config import OpenAIPolicy, PolicyConfig, PoolConfig
from pipeline.early_stop import decided_steps, stopping_region
from pipeline.plan import Plan
from pipeline.policies import open_policy
from pipeline.quarantine import Failure, Slice
from pipeline.records import Completion, Solution
from pipeline.store import StageStore
from pipeline.turns import Turns
from pipeline.workers.making import Row, failed, tries_of
from pipeline.workers.patience import TRIES, Patience
from pipeline.workers.reading import given_up, step_labels


class PolicyWorker:
    """Base of the workers that ask a policy: many parts at once on one event loop."""

    place: Place = UNPLACED

    def __init__(
        self, plan: Plan, policy: PolicyConfig, pool: PoolConfig, stage: StageStore[Any]
    ) -> None:
        self.plan = plan
        if isinstance(policy, OpenAIPolicy):
            policy = policy.shared_by(pool.max_size)
        self.policy = open_policy(policy, plan.journal_directory)
        self.style = policy.prompt
        self.stage = stage
        self.turns = Turns()
        self.patience = Patience()

    async def ask(self, piece: Slice) -> Iterable[Any]:
        """The rows of a part, or of one problem of it. May raise anything."""
        raise NotImplementedError

    async def __call__(self, row: Row) -> Row:
        tried = await self._try(row)
        for _ in range(TRIES - 1):
            if tried["failure"] != Failure.PASSING:
                break
            await asyncio.sleep(self.patience.pause_s())
            tried = await self._try(row)
        if not tried["error"]:
            self.patience.relieve()
        return tried

    async def _try(self, row: Row) -> Row:
        try:
            tries = tries_of(self.plan, row, self.stage, self.place)
            while (piece := tries.next()) is not None:
                async with self.turns.alone() if piece.alone else self.turns.shared():
                    tries.begin(piece)
                    try:
                        rows = await self.ask(piece)
                    except Exception as error:  # noqa: BLE001 - see PartWorker
                        tries.failed(piece, error)
                    else:
                        tries.made(piece, rows)
        except Exception as error:  # noqa: BLE001 - see PartWorker
            return failed(row, error, self.stage.name)
        return row


class SampleParts(PolicyWorker):
    """Problems -> solutions."""

    def __init__(self, plan: Plan) -> None:
        pool = plan.config.sampling.pool
        super().__init__(plan, plan.sampling_policy(), pool, plan.solutions)

    async def ask(self, piece: Slice) -> list[Solution]:
        return await sampling.sample_solutions(
            self.policy,
            self.plan.sampling_version(),
            piece.read(self.plan.problems),
            self.plan.config.sampling.samples,
            self.style,
        )


class CompleteParts(PolicyWorker):
    """Function prefixes -> completions, of one wave."""

    def __init__(self, plan: Plan, wave: int) -> None:
        pool = plan.config.rollouts.pool
        super().__init__(plan, plan.rollout_policy(), pool, plan.waves[wave].completions)
        self.wave = wave
        rule, samples = plan.config.rollouts.early_stop, plan.config.rollouts.samples
        self.region = stopping_region(samples, rule) if rule is not None else frozenset()

    async def ask(self, piece: Slice) -> list[Completion]:
        left_out = given_up(self.earlier, piece.part)
        return await rollouts.complete_prefixes(
            self.policy,
            self.plan.rollout_version(),
            piece.read(self.plan.problems),
            [s for s in piece.read(self.plan.solutions) if s.problem_id not in left_out],
            self.plan.waves[self.wave].indices,
            self.style,
            self.decided(piece.part),
        )

    @property
    def earlier(self) -> list[StageStore[Any]]:
        return [stage for wave in self.plan.waves[: self.wave] for stage in wave.stages]

    def decided(self, part: int) -> set[str]:
        """The steps that the waves before this one left nothing to ask of."""
        return decided_steps(step_labels(self.plan.waves[: self.wave], part), self.region)
