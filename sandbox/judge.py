"""One slot: judges programs, and puts a fresh container in the place of one that is lost or spent.

What is said to the runner in the container, and what its answers mean, is in `session.py`.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

from sandbox import container, process
from sandbox.checks import Check, check_all, checks_of
from sandbox.interpreter import ASK
from sandbox.protocol import Isolation, Limits, Program, Status, Verdict
from sandbox.session import CANARY, Failure, Session, Tally
from sandbox.spare import Supply
from sandbox.transport import SandboxUnavailable, Transport, TransportError

IMAGE = "chain-of-functions-sandbox"

_INFRA_RETRIES = 2
_MOST_TOLD_BYTES = 1 << 12
# A container must prove itself again after so many programs, or so many idle seconds.
_PROVE_EVERY = 500
_PROVE_AFTER_S = 60.0
_RESTART_DELAYS_S = (0.5, 2.0, 8.0)  # an engine that is being restarted comes back


class Sandbox:
    """One slot: programs are judged one after another in one warm container. A second container
    stands by from the first program on, to take the place of one that has to go (`spare.py`).

    The container has twice the memory that one test may use; a program with a higher limit than
    any before it gets a larger container. Now and then, and after a pause, a container must accept
    a program that is known to be right before it gets the next one. Methods may be called from
    several threads; they take turns. Raises SandboxUnavailable, at once, where there is no engine
    or no image.
    """

    def __init__(
        self,
        isolation: Literal["docker", "unsafe-process"] = "docker",
        image: str = IMAGE,
    ) -> None:
        if isolation not in ("docker", "unsafe-process"):
            raise ValueError(f"isolation: 'docker' or 'unsafe-process', not {isolation!r}")
        self._image = image
        self._memory_mb = 2 * Limits().memory_mb
        self._turn = threading.Lock()
        self._is_closed = False
        self._judged_unproven = 0  # programs since the session last accepted the canary
        self._idle_since = 0.0  # on the clock of `time.monotonic`
        self._engine = None
        if isolation == "docker":
            self._engine = container.connect()
            container.remove_orphans(self._engine)
        else:
            process.remove_orphans()
        self._supply = Supply(self._start, keeps_spare=isolation == "docker")
        self._session: Session | None = self._fresh()

    @property
    def _transport(self) -> Transport | None:
        return None if self._session is None else self._session.transport

    @property
    def isolation(self) -> Isolation:
        return Isolation.NONE if self._engine is None else Isolation.DOCKER

    def judge(self, program: Program) -> Verdict:
        """Run the tests of `program`, up to the first failure.

        A test that only ran out of wall time is tried once more in a fresh container; a failure of
        the sandbox itself twice, then the status is INFRA. Raises ValueError for a program that
        cannot be judged (no tests, arguments that are no data), SandboxUnavailable where the engine
        went away and does not come back, and where the sandbox is closed, be it meanwhile.
        """
        checks = checks_of(program)
        with self._turn:
            return self._judge(program, checks)

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """The verdicts, in order; equal programs run once. A program that cannot be judged is found
        before any has run."""
        check_all(programs)
        verdicts = {program: self.judge(program) for program in dict.fromkeys(programs)}
        return [verdicts[program] for program in programs]

    async def judge_async(self, program: Program) -> Verdict:
        return await asyncio.to_thread(self.judge, program)

    def interpreter(self) -> str:
        """What programs run on, as they see it: `CPython 3.11.2, numpy 1.24.2, ...`. Verdicts of
        one interpreter are not those of another. Raises SandboxUnavailable."""
        told: list[bytes] = []
        check = Check(b"", _MOST_TOLD_BYTES, lambda _, output: told.append(output))
        with self._turn:
            verdict = self._judge(ASK, [check])
        if verdict.status is not Status.AC:
            raise SandboxUnavailable(
                f"the sandbox does not tell its Python: {verdict.status} {verdict.detail}"
            )
        return told[-1].decode("utf-8", "replace").strip()

    def is_healthy(self) -> bool:
        """Whether a program that is known to be right is accepted: the canary."""
        return self.judge(CANARY).status is Status.AC

    def close(self) -> None:
        """End the container, and with it whatever it is judging. May be called twice, and while
        another thread judges: that one gets SandboxUnavailable."""
        self._is_closed = True
        session = self._session
        if session is not None:
            session.stop()
        with self._turn:
            self._discard()
            self._supply.close()
            if self._engine is not None:
                self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _judge(self, program: Program, checks: list[Check]) -> Verdict:
        tally = Tally(program, self.isolation)
        failures = 0
        has_waited = False
        while True:
            try:
                failure = self._run(program, checks, tally)
            except TransportError as error:
                self._discard()
                if self._is_closed:
                    raise SandboxUnavailable("the sandbox was closed meanwhile") from error
                failures += 1
                if failures > _INFRA_RETRIES:
                    return tally.verdict(Status.INFRA, str(error))
                continue
            if failure is None:
                return tally.verdict(Status.AC)
            if failure.is_wall_only and not has_waited:
                has_waited = True
                self._discard()
                continue
            return tally.verdict(failure.status, failure.detail)

    def _run(self, program: Program, checks: list[Check], tally: Tally) -> Failure | None:
        """Run the tests that have not passed yet; the first failure, if any."""
        while True:
            if self._memory_mb < 2 * program.limits.memory_mb:
                self._memory_mb = 2 * program.limits.memory_mb
                self._discard()
            if self._session is not None and self._is_proof_due():
                self._judged_unproven = 0
                if not self._session.accepts_canary():
                    self._discard()
            if self._session is None:
                self._session = self._take()
            self._supply.prepare(self._memory_mb)
            if self._is_closed:
                raise SandboxUnavailable("the sandbox is closed")
            failure = self._session.run(program, checks, tally)
            self._judged_unproven += 1
            self._idle_since = time.monotonic()
            if self._session.is_spent:
                self._discard()
            if failure is not None or tally.passed == len(checks):
                return failure

    def _take(self) -> Session:
        """A fresh session; an engine that is being restarted is waited for."""
        for delay in _RESTART_DELAYS_S:
            try:
                return self._fresh()
            except SandboxUnavailable:
                if self._is_closed:
                    raise
                time.sleep(delay)
        return self._fresh()

    def _fresh(self) -> Session:
        """A session that no program has seen, and that has proven to accept a right one."""
        session = self._supply.take(self._memory_mb)
        if not session.accepts_canary():
            session.close()
            raise SandboxUnavailable("a fresh sandbox rejects a program that is right")
        self._judged_unproven, self._idle_since = 0, time.monotonic()
        return session

    def _is_proof_due(self) -> bool:
        idle_s = time.monotonic() - self._idle_since
        return self._judged_unproven >= _PROVE_EVERY or idle_s >= _PROVE_AFTER_S

    def _start(self, memory_mb: int) -> Session:
        if self._engine is None:
            return Session(process.ProcessTransport(), memory_mb)
        transport = container.ContainerTransport(self._engine, self._image, memory_mb)
        return Session(transport, memory_mb)

    def _discard(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
