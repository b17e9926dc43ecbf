"""The Ray side: one sandbox slot per actor.

`SandboxActor` is an ordinary class, so it works as a member of a `map_batches` worker, as its base,
or alone as `ray.remote(SandboxActor)`; give it one unit of the `docker` resource that a node
declares, and Ray spreads the slots over the cluster:

    Slot = ray.remote(resources={"docker": 1}, max_restarts=3)(SandboxActor)
    verdicts = ray.get(Slot.remote().judge_all.remote(programs))
"""

import atexit
from collections.abc import Sequence
from typing import Literal

from sandbox.judge import IMAGE, Sandbox
from sandbox.protocol import Isolation, Program, Verdict
from sandbox.transport import SandboxUnavailable


class SandboxActor:
    """A slot that has proven, before it takes work, that it accepts a right program.

    Its container ends with it: at `close`, when the process exits, and, because the container then
    reads the end of its input, when the process is killed.
    """

    def __init__(
        self, isolation: Literal["docker", "unsafe-process"] = "docker", image: str = IMAGE
    ) -> None:
        self._sandbox = Sandbox(isolation, image)
        atexit.register(self.close)
        self.check_health()

    @property
    def isolation(self) -> Isolation:
        return self._sandbox.isolation

    def judge(self, program: Program) -> Verdict:
        return self._sandbox.judge(program)

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """The verdicts, in order; equal programs run once."""
        return self._sandbox.judge_all(programs)

    def check_health(self) -> None:
        """Judge the canary. Ray's name for a health check: raising restarts the actor."""
        if not self._sandbox.is_healthy():
            raise SandboxUnavailable("the sandbox rejects a program that is right")

    def close(self) -> None:
        atexit.unregister(self.close)
        self._sandbox.close()
