"""The trusted side: sends a program and its tests to a runner and decides what the answers mean.

Expected outputs are known here and nowhere else. Whatever comes back is bytes from a hostile place:
an answer can be right or wrong, but it cannot say that it is right.
"""

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self

from sandbox import container, frames
from sandbox.checks import Check, checks_of
from sandbox.process import ProcessTransport
from sandbox.protocol import Isolation, Limits, Program, Status, TestCase, Verdict
from sandbox.transport import SandboxUnavailable, Transport, TransportError

IMAGE = "chain-of-functions-sandbox"

_START_S = 60.0
_GRACE_S = 15.0  # beyond a test's wall limit: then the runner counts as silent
_INFRA_RETRIES = 2
# Tests sent before their predecessors are answered, so that the runner need not wait for the judge.
_TESTS_AHEAD = 8
_BYTES_AHEAD = 1 << 18
_RESTART_DELAYS_S = (0.5, 2.0, 8.0)  # an engine that is being restarted comes back


class Sandbox:
    """One slot: programs are judged one after another in one warm container.

    The container has twice the memory that one test may use; a program with a higher limit than
    any before it gets a larger container. Methods may be called from several threads; they take
    turns. Raises SandboxUnavailable, at once, where there is no engine or no image.
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
        self._engine = None
        self._unwanted: set[bytes] = set()  # requests called off, which may yet be answered
        if isolation == "docker":
            self._engine = container.connect()
            container.remove_orphans(self._engine)
        self._transport: Transport | None = self._start()

    @property
    def isolation(self) -> Isolation:
        return Isolation.NONE if self._engine is None else Isolation.DOCKER

    def judge(self, program: Program) -> Verdict:
        """Run the tests of `program`, up to the first failure.

        A test that only ran out of wall time is tried once more in a fresh container; a failure of
        the sandbox itself twice, then the status is INFRA. Raises ValueError for a program that
        cannot be judged (no tests, arguments that are no data), SandboxUnavailable where the engine
        went away and does not come back.
        """
        checks = checks_of(program)
        with self._turn:
            return self._judge(program, checks)

    def judge_all(self, programs: Sequence[Program]) -> list[Verdict]:
        """The verdicts, in order; equal programs run once."""
        verdicts = {program: self.judge(program) for program in dict.fromkeys(programs)}
        return [verdicts[program] for program in programs]

    async def judge_async(self, program: Program) -> Verdict:
        return await asyncio.to_thread(self.judge, program)

    def is_healthy(self) -> bool:
        """Whether a program that is known to be right is accepted: the canary."""
        return self.judge(_CANARY).status is Status.AC

    def close(self) -> None:
        """End the container. May be called twice."""
        self._discard()
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
        tally = _Tally(program, self.isolation)
        failures = 0
        has_waited = False
        while True:
            try:
                failure = self._run(program, checks, tally)
            except TransportError as error:
                self._discard()
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

    def _run(self, program: Program, checks: list[Check], tally: "_Tally") -> "_Failure | None":
        """Run the tests that have not passed yet; the first failure, if any."""
        if 2 * program.limits.memory_mb > self._memory_mb:
            self._memory_mb = 2 * program.limits.memory_mb
            self._discard()
        if self._transport is None:
            self._transport = self._restart()
        transport = self._transport
        limits = program.limits
        wall_s = 2 * limits.cpu_s + 1
        left = deque(checks[tally.passed :])
        ahead: deque[tuple[bytes, Check]] = deque()  # sent, not answered
        outbox = frames.pack(
            frames.PROGRAM,
            frames.NO_REQUEST,
            {
                "entry_point": program.entry_point,
                "cpu_s": limits.cpu_s,
                "wall_s": wall_s,
                "memory_mb": limits.memory_mb,
                "tests": len(left),
            },
            program.code.encode("utf-8", "surrogatepass"),
        )
        while left or ahead:
            if len(ahead) <= _TESTS_AHEAD // 2:
                size = sum(len(check.payload) for _, check in ahead)
                while left and len(ahead) < _TESTS_AHEAD:
                    size += len(left[0].payload)
                    if ahead and size > _BYTES_AHEAD:
                        break
                    check, request = left.popleft(), secrets.token_bytes(16)
                    ahead.append((request, check))
                    fields = {"output_bytes": check.output_bytes}
                    outbox += frames.pack(frames.TEST, request, fields, check.payload)
            deadline = time.monotonic() + wall_s + _GRACE_S
            if outbox:
                transport.send(outbox, deadline)
                outbox = b""
            request, check = ahead.popleft()
            answer = self._answer(transport, request, deadline)
            tally.count(answer)
            if answer.is_dirty:
                self._discard()
            failure = answer.failure(check, program)
            if failure is not None:
                self._unwanted.update(request for request, _ in ahead)
                if ahead and not answer.is_dirty:
                    end = frames.pack(frames.END, frames.NO_REQUEST, {})
                    transport.send(end, time.monotonic() + _GRACE_S)
                return failure
            tally.passed += 1
            if answer.is_dirty:
                return self._run(program, checks, tally)
        return None

    def _answer(self, transport: Transport, request: bytes, deadline: float) -> "_Answer":
        """The answer to this very request; those that were called off are passed over. Raises
        TransportError for anything else."""
        while True:
            try:
                frame = frames.read(partial(transport.receive, deadline=deadline))
            except frames.BrokenStream as error:
                raise TransportError(f"the runner makes no sense: {error}") from error
            if frame.kind == frames.RESULT and frame.request in self._unwanted:
                self._unwanted.discard(frame.request)
                continue
            if frame.kind != frames.RESULT or frame.request != request:
                raise TransportError("the runner answers what it was not asked")
            self._unwanted.clear()  # it answers in order
            return _Answer.of(frame)

    def _start(self) -> Transport:
        transport: Transport | None = None
        deadline = time.monotonic() + _START_S
        self._unwanted = set()
        try:
            if self._engine is None:
                transport = ProcessTransport()
            else:
                transport = container.ContainerTransport(self._engine, self._image, self._memory_mb)
            transport.send(transport.cargo, deadline)
            receive = partial(transport.receive, deadline=deadline)
            if frames.read(receive).kind != frames.READY:
                raise TransportError("the runner does not greet")
        except (TransportError, frames.BrokenStream) as error:
            if transport is not None:
                transport.close()
            raise SandboxUnavailable(f"the runner does not start: {error}") from error
        return transport

    def _restart(self) -> Transport:
        for delay in _RESTART_DELAYS_S:
            try:
                return self._start()
            except SandboxUnavailable:
                time.sleep(delay)
        return self._start()

    def _discard(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None


@dataclass(frozen=True, slots=True)
class _Failure:
    status: Status
    detail: str
    is_wall_only: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the runner says of one test."""

    outcome: str
    detail: str
    cpu_s: float
    wall_s: float
    peak_mb: float
    is_wall_only: bool
    is_dirty: bool  # something of the test may be left: the container must go
    output: bytes | None

    @classmethod
    def of(cls, frame: frames.Frame) -> "_Answer":
        """Raises TransportError for fields that make no sense."""
        fields = frame.fields
        try:
            return cls(
                outcome=str(fields["outcome"]),
                detail=str(fields["detail"])[:400],
                cpu_s=float(fields["cpu_s"]),
                wall_s=float(fields["wall_s"]),
                peak_mb=float(fields["peak_mb"]),
                is_wall_only=bool(fields["is_wall_only"]),
                is_dirty=bool(fields["is_dirty"]),
                output=frame.payload if fields["has_output"] else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TransportError(f"the runner makes no sense: {error!r}") from error

    def failure(self, check: Check, program: Program) -> _Failure | None:
        if self.outcome == "OK":
            difference = check.difference(program.comparator, self.output)
            return None if difference is None else _Failure(Status.WA, difference, False)
        try:
            status = Status(self.outcome)
        except ValueError as error:
            raise TransportError(f"the runner knows an outcome {self.outcome!r}") from error
        if status in (Status.AC, Status.INFRA):  # not the runner's to say
            raise TransportError(f"the runner claims {status}")
        return _Failure(status, self.detail, self.is_wall_only)


class _Tally:
    """What is known of a program so far; survives the loss of a container."""

    def __init__(self, program: Program, isolation: Isolation) -> None:
        self._program = program
        self._isolation = isolation
        self.passed = 0
        self._cpu_s = 0.0
        self._wall_s = 0.0
        self._peak_mb = 0.0

    def count(self, answer: _Answer) -> None:
        self._cpu_s += answer.cpu_s
        self._wall_s += answer.wall_s
        self._peak_mb = max(self._peak_mb, answer.peak_mb)

    def verdict(self, status: Status, detail: str = "") -> Verdict:
        has_failed_test = status not in (Status.AC, Status.CE, Status.INFRA)
        run = self.passed + has_failed_test
        return Verdict(
            status=status,
            tests_passed=self.passed,
            tests_run=run,
            tests_total=len(self._program.tests),
            first_failure=self.passed if has_failed_test else None,
            detail=detail,
            cpu_s=self._cpu_s,
            wall_s=self._wall_s,
            peak_mb=self._peak_mb,
            isolation=self._isolation,
            comparator=self._program.comparator,
            tests_forgeable=sum(test.script is not None for test in self._program.tests[:run]),
        )


_CANARY = Program(
    "print(sum(map(int, input().split())))", (TestCase(stdin="20 22\n", expected="42\n"),)
)
