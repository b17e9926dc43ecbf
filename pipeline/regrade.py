"""Judge solutions that came without a run: several sandboxes on this machine, no Ray.

Verdicts are kept in parts below a folder, so that judging the same solutions by the same problems
in the same sandbox goes on where it stopped, and nothing else is ever mixed in.
"""

import hashlib
import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import Literal

from pipeline import schemas
from pipeline.execution import judge_solutions
from pipeline.records import Problem, ProgramVerdict, Solution
from pipeline.store import StageStore, fingerprint
from sandbox import Sandbox

PROBLEMS_PER_PART = 16
"""Unit of work and of resume."""


class Regrade:
    """`problems` holds at least those of the solutions, by id."""

    def __init__(
        self,
        root: str,
        isolation: Literal["docker", "unsafe-process"],
        memory_mb: int,
        problems: Mapping[str, Problem],
        solutions: Sequence[Solution],
    ) -> None:
        self._isolation: Literal["docker", "unsafe-process"] = isolation
        self._memory_mb = memory_mb
        self._solutions = solutions
        by_problem: dict[str, list[Solution]] = {}
        for solution in solutions:
            by_problem.setdefault(solution.problem_id, []).append(solution)
        self._by_problem = by_problem
        self._problems = {name: problems[name] for name in sorted(by_problem)}
        names = list(self._problems)
        self.parts = [
            names[at : at + PROBLEMS_PER_PART] for at in range(0, len(names), PROBLEMS_PER_PART)
        ]
        self.stage = StageStore(root, "regraded", self._fingerprint(), schemas.PROGRAM_VERDICT)

    def judge(self, parts: Sequence[int], slots: int) -> Iterator[int]:
        """Judge parts, in `slots` sandboxes at once; gives each as it is stored.

        Raises SandboxUnavailable, and StoreError.
        """
        if not parts:
            return
        slots = min(slots, len(parts))
        with ExitStack() as stack:
            free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
            for _ in range(slots):
                free.put(stack.enter_context(Sandbox(self._isolation)))

            def judge_one(part: int) -> int:
                sandbox = free.get()
                try:
                    self._judge(sandbox, part)
                finally:
                    free.put(sandbox)
                return part

            pool = ThreadPoolExecutor(slots)
            stack.callback(pool.shutdown, cancel_futures=True)
            for future in as_completed([pool.submit(judge_one, part) for part in parts]):
                yield future.result()

    def verdicts(self) -> list[ProgramVerdict]:
        """One per solution, in their order. Raises DamagedPart where a part is not there."""
        rows = self.stage.read_all(range(len(self.parts)))
        by_id = {row.program_id: row for row in rows}
        return [by_id[solution.solution_id] for solution in self._solutions]

    def _judge(self, sandbox: Sandbox, part: int) -> None:
        names = self.parts[part]
        verdicts = judge_solutions(
            sandbox.judge_all,
            sandbox.isolation,
            [self._problems[name] for name in names],
            [solution for name in names for solution in self._by_problem[name]],
            self._memory_mb,
        )
        self.stage.write(part, verdicts)

    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for solution in self._solutions:
            digest.update(f"{solution.solution_id}\n{solution.code}\n".encode())
        for problem in self._problems.values():
            digest.update(repr(problem).encode("utf-8", "surrogatepass"))
        return fingerprint(
            stage="regraded",
            schema=schemas.PROGRAM_VERDICT.version,
            solutions_and_problems=digest.hexdigest(),
            problems_per_part=PROBLEMS_PER_PART,
            isolation=self._isolation,
            memory_mb=self._memory_mb,
        )
