"""One runner, from its first word to its last: what the judge asks it, and what its answers mean.

Expected outputs stay on this side. Whatever comes back is bytes from a hostile place: an answer can
be right or wrong, but it cannot say that it is right.
"""

import secrets
import time
from collections import deque
from dataclasses import dataclass
from functools import partial

from sandbox import frames
from sandbox.checks import Check, checks_of
from sandbox.protocol import Isolation, Program, Status, TestCase, Verdict
from sandbox.transport import SandboxUnavailable, Transport, TransportError

_START_S = 60.0
# The longest that a test takes, in wall limits: on a crowded machine (`watch.py`).
_MOST_WALL = 3
# Beyond that the runner counts as silent, and its container is given up. By itself it needs up
# to twice 3 s to fight what a test left behind (`sweep.PATIENCE_S`), and it was seen to stand still
# for 8.7 s while the kernel killed 24 processes for memory.
_GRACE_S = 15.0
# Tests sent before their predecessors are answered, so that the runner need not wait for the judge.
_TESTS_AHEAD = 8
_BYTES_AHEAD = 1 << 18


@dataclass(frozen=True, slots=True)
class Failure:
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

    def failure(self, check: Check, program: Program) -> Failure | None:
        if self.outcome == "OK":
            difference = check.difference(program.comparator, self.output)
            return None if difference is None else Failure(Status.WA, difference, False)
        try:
            status = Status(self.outcome)
        except ValueError as error:
            raise TransportError(f"the runner knows an outcome {self.outcome!r}") from error
        if status in (Status.AC, Status.INFRA):  # not the runner's to say
            raise TransportError(f"the runner claims {status}")
        return Failure(status, self.detail, self.is_wall_only)


class Tally:
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

    def overrun(self) -> Failure | None:
        """What the tests used together, if that is too much."""
        most_s = self._program.limits.program_cpu_s
        if self._cpu_s <= most_s and self._wall_s <= _MOST_WALL * (2 * most_s + 1):
            return None
        spent = f"{self._cpu_s:.1f} s of CPU time, {self._wall_s:.1f} s in all"
        return Failure(Status.TLE, f"all tests together: over {most_s:g} s ({spent})", False)

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


class Session:
    """A started runner. Raises SandboxUnavailable where it does not start."""

    def __init__(self, transport: Transport, memory_mb: int) -> None:
        self.transport = transport
        self.memory_mb = memory_mb  # what its container may use
        self.is_spent = False  # something of a test may be left in it
        self._unwanted: set[bytes] = set()  # requests called off, which may yet be answered
        deadline = time.monotonic() + _START_S
        try:
            transport.send(transport.cargo, deadline)
            if frames.read(partial(transport.receive, deadline=deadline)).kind != frames.READY:
                raise TransportError("the runner does not greet")
        except (TransportError, frames.BrokenStream) as error:
            transport.close()
            raise SandboxUnavailable(f"the runner does not start: {error}") from error

    def accepts_canary(self) -> bool:
        """Whether a program that is known to be right is accepted."""
        try:
            failure = self.run(CANARY, checks_of(CANARY), Tally(CANARY, self.transport.isolation))
        except TransportError:
            return False
        return failure is None and not self.is_spent

    def stop(self) -> None:
        """End what another thread is running, which gets a TransportError."""
        self.transport.stop()

    def close(self) -> None:
        self.transport.close()

    def run(self, program: Program, checks: list[Check], tally: Tally) -> Failure | None:
        """Run the tests that have not passed yet; the first failure, if any. It returns early,
        with None and `is_spent`, where the rest needs another session. Raises TransportError."""
        transport = self.transport
        limits = program.limits
        wall_s = 2 * limits.cpu_s + 1
        left = deque(checks[tally.passed :])
        ahead: deque[tuple[bytes, Check]] = deque()  # sent, not answered
        is_deaf = False  # the runner takes nothing more
        outbox = frames.pack(
            frames.PROGRAM,
            frames.NO_REQUEST,
            {
                "entry_point": program.entry_point,
                "prelude": program.prelude,
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
            deadline = time.monotonic() + _MOST_WALL * wall_s + _GRACE_S
            if outbox and not is_deaf:
                try:
                    transport.send(outbox, deadline)
                except TransportError:
                    is_deaf = True  # what it said before it ended still counts
                outbox = b""
            request, check = ahead.popleft()
            answer = self._answer(request, deadline)
            tally.count(answer)
            self.is_spent = is_deaf or answer.is_dirty
            failure = answer.failure(check, program) or tally.overrun()
            if failure is not None:
                self._unwanted.update(request for request, _ in ahead)
                if ahead and not answer.is_dirty:
                    end = frames.pack(frames.END, frames.NO_REQUEST, {})
                    try:
                        transport.send(end, time.monotonic() + _GRACE_S)
                    except TransportError:  # a test sent ahead has ended it: the verdict stands
                        self.is_spent = True
                return failure
            tally.passed += 1
            if answer.is_dirty:
                return None
        return None

    def _answer(self, request: bytes, deadline: float) -> _Answer:
        """The answer to this very request; those that were called off are passed over. Raises
        TransportError for anything else."""
        while True:
            try:
                frame = frames.read(partial(self.transport.receive, deadline=deadline))
            except frames.BrokenStream as error:
                raise TransportError(f"the runner makes no sense: {error}") from error
            if frame.kind == frames.RESULT and frame.request in self._unwanted:
                self._unwanted.discard(frame.request)
                continue
            if frame.kind != frames.RESULT or frame.request != request:
                raise TransportError("the runner answers what it was not asked")
            self._unwanted.clear()  # it answers in order
            return _Answer.of(frame)


CANARY = Program(
    "print(sum(map(int, input().split())))", (TestCase(stdin="20 22\n", expected="42\n"),)
)
