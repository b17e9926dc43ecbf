"""The Ray side: the sandbox slots of one actor.

`SandboxActor` is an ordinary class, so it works as a member of a `map_batches` worker, as its base,
or alone as `ray.remote(SandboxActor)`; give it one unit of the `docker` resource for each of its
slots, and Ray spreads the slots over the cluster:

    options = {"resources": {"docker": 2}, "max_concurrency": 8}
    options |= {"max_restarts": 3, "max_task_retries": 3}  # the first alone loses what was running
    Slots = ray.remote(**options)(SandboxActor)
    actor = Slots.remote(slots=2)
    verdicts = ray.get([actor.judge.remote(program) for program in programs])

With `max_concurrency` above the slots, programs wait in the actor for whichever slot is free: the
slots never idle for a round trip, and a slow program holds up none but its own. (It has no `async`
method: one would turn it into an asyncio actor, in which the others block.)
"""

import atexit
from collections.abc import Sequence
from typing import Literal

from sandbox.judge import IMAGE
from sandbox.pool import SandboxPool
from sandbox.protocol import Isolation, Program, Verdict
from sandbox.transport import SandboxUnavailable


class SandboxActor:
    """Slots that have proven, before they take work, that they accept a right program.

    Their containers end with it: at `close`, when the process exits, and, because the containers
    then read the end of their input, when the process is killed.
    """

    def __init__(
        self,
        isolation: Literal["docker", "unsafe-process"] = "docker",
        image: str = IMAGE,
        slots: int = 1,
    ) -> None:
        self._pool = SandboxPool(slots, isolation, image)
        atexit.register(self.close)

    @property
    def isolation(self) -> Isolation:
        return self._pool.isolation

    def judge(self, program: Program) -> Verdict:
        return self._pool.judge(program)

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """The verdicts, in order; equal programs run once."""
        return self._pool.judge_all(programs)

    def interpreter(self) -> str:
        """What programs run on, as they see it; an image may differ from node to node."""
        return self._pool.interpreter()

    def check_health(self) -> None:
        """Judge the canary in every slot. Raises SandboxUnavailable. Ray Core does not call it, and
        nobody has to: each slot proves itself, now and then, before it takes a program."""
        if not self._pool.is_healthy():
            raise SandboxUnavailable("the sandbox rejects a program that is right")

    def close(self) -> None:
        atexit.unregister(self.close)
        self._pool.close()
