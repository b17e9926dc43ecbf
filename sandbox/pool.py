"""Several slots side by side: whichever is free takes the next program, so that a slow one holds up
its own slot and no other."""

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Literal, Self

from sandbox.checks import check_all
from sandbox.judge import IMAGE, Sandbox
from sandbox.protocol import Isolation, Program, Verdict
from sandbox.transport import SandboxUnavailable


class SandboxPool:
    """`slots` sandboxes. Its methods are those of `Sandbox`, may be called from any number of
    threads, and raise what those raise. A slot whose sandbox is lost for good hands its program to
    the others; SandboxUnavailable is raised where none is left."""

    def __init__(
        self,
        slots: int,
        isolation: Literal["docker", "unsafe-process"] = "docker",
        image: str = IMAGE,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots: at least 1, not {slots}")
        self._workers = ThreadPoolExecutor(slots, thread_name_prefix="sandbox-slot")
        self._sandboxes: list[Sandbox] = []
        self._free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        self._aside: list[Sandbox] = []  # had no sandbox to be had when they were last asked
        self._lock = threading.Lock()
        starting = [self._workers.submit(Sandbox, isolation, image) for _ in range(slots)]
        try:
            for started in starting:
                self._sandboxes.append(started.result())
        except BaseException:
            self._sandboxes = [s.result() for s in starting if s.exception() is None]
            self.close()
            raise
        for sandbox in self._sandboxes:
            self._free.put(sandbox)

    @property
    def isolation(self) -> Isolation:
        return self._sandboxes[0].isolation

    def judge(self, program: Program) -> Verdict:
        return self._workers.submit(self._judge, program).result()

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """The verdicts, in order; equal programs run once. A program that cannot be judged is found
        before any has run."""
        check_all(programs)
        distinct = dict.fromkeys(programs)
        verdicts = dict(zip(distinct, self._workers.map(self._judge, distinct), strict=True))
        return [verdicts[program] for program in programs]

    async def judge_async(self, program: Program) -> Verdict:
        return await asyncio.wrap_future(self._workers.submit(self._judge, program))

    def interpreter(self) -> str:
        """What programs run on, as they see it; all slots are of one image."""
        return self._sandboxes[0].interpreter()

    def is_healthy(self) -> bool:
        """Whether every slot accepts a program that is known to be right. Waits for busy ones."""
        return all(sandbox.is_healthy() for sandbox in self._sandboxes)

    def close(self) -> None:
        """End the containers, once their programs are judged. May be called twice."""
        self._workers.shutdown()
        for sandbox in self._sandboxes:
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _judge(self, program: Program) -> Verdict:
        while True:
            sandbox = self._free.get()
            try:
                verdict = sandbox.judge(program)
            except SandboxUnavailable:
                if self._put_aside(sandbox):
                    raise
                continue  # in another slot
            except BaseException:
                self._free.put(sandbox)
                raise
            self._free.put(sandbox)
            return verdict

    def _put_aside(self, sandbox: Sandbox) -> bool:
        """Give no more work to a slot that has no sandbox to be had. True where it was the last:
        then all are as good as any, and the next program may try its luck again."""
        with self._lock:
            self._aside.append(sandbox)
            if len(self._aside) < len(self._sandboxes):
                return False
            for slot in self._aside:
                self._free.put(slot)
            self._aside.clear()
            return True
