"""The guard inside the sandbox: takes programs and tests, and says how each test ended.

Standard library only; shipped by `boot.py`. Five kinds of processes keep secrets apart:

- the *runner* (this file) talks to the judge. It alone ever holds a test, and it never forks;
- the *gate* was forked before the runner had read anything; it forks a stem per program, before
  that program is there;
- the *compiler*, forked from the gate, reads all programs and runs none (`compiler.py`);
- the *stem* takes one program, forks a child per test, and exits (`gate.py`);
- a *child* inherits its own program and nothing else: no other program's text, no request id, no
  test but the one that it reads from its own standard input (`child.py`).

The children of one program are forked one after another, each once its predecessor is proven to
have left no process and no file. While one runs, the next one's directory and pipes are made ready
and its input is written; it starts when its predecessor has ended, and its result is thrown away
where that one failed.

A child has its own uid, its own 0700 directory, rlimits, real pipes, and one pipe to the runner.
Where a test cannot be cleared away the result says `dirty`, the runner ends, and the judge starts a
new container. What this does not stop is a kernel exploit; see the README.

Needs Linux 5.3. Works with cgroup v1 and v2.
"""

import os
import select
import signal
import sys
import time
from collections import deque
from contextlib import suppress

from sandbox import frames, meter, sweep, watch
from sandbox.compiler import Compiler
from sandbox.orders import OVER, Event, Orders, Work, uid_of

_KILL_TICK_S = 0.002  # between attempts to end what is to be stopped
_CHUNK = 1 << 16  # more would be mapped, and unmapped, for each read
_LAZY_S = 0.004  # before the pipes of a test are looked at: most tests have ended by then


def serve(orders: Orders, compiler: Compiler, box: str, uids: range | None) -> None:
    """Serve the judge until it closes the stream."""
    try:
        _Runner(orders, compiler, box, uids).serve()
    except EOFError:
        pass  # the judge is gone
    except _Dirty as reason:
        sys.exit(str(reason))
    finally:
        if uids is None:
            with suppress(OSError):  # a judge that was killed cannot remove it
                os.rmdir(box)


class _Dirty(Exception):
    """Something of a test may be left, or the gate is lost: this container must go."""


class _Stream:
    """The judge's stream: standard input and output. It reads on while it cannot write, since the
    judge may be writing too."""

    def __init__(self) -> None:
        os.set_blocking(1, False)
        self._arrived = bytearray()
        self.frames: deque[frames.Frame] = deque()

    def read(self) -> None:
        """Blocks while there is nothing. Raises EOFError where the judge is gone."""
        data = os.read(0, _CHUNK)
        if not data:
            raise EOFError
        self._arrived += data
        while frame := frames.take(self._arrived):
            self.frames.append(frame)

    def next_is(self, kind: int) -> bool:
        """Whether a frame of this kind is the next, waiting for one."""
        while not self.frames:
            self.read()
        return self.frames[0].kind == kind

    def write(self, frame: bytes) -> None:
        view = memoryview(frame)
        while view:
            try:
                view = view[os.write(1, view) :]
            except BlockingIOError:
                if select.select([0], [1], [])[0]:
                    self.read()


class _Test:
    """A test in flight, or ready to fly."""

    def __init__(
        self, request: bytes, serial: int, uid: int | None, test_watch: watch.Watch
    ) -> None:
        self.request = request
        self.serial = serial
        self.uid = uid
        self.watch = test_watch
        self.pid: int | None = None
        self.end: Event | None = None

    def kill(self) -> None:
        """SIGKILL to all of its processes, as far as they can be named from here; the stem sees to
        the rest. By its pid as well: it may not have taken its uid yet."""
        if self.pid is not None and self.end is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)
            if self.uid is not None:
                sweep.kill_processes(self.uid)


class _Runner:
    def __init__(self, orders: Orders, compiler: Compiler, box: str, uids: range | None) -> None:
        self._orders = orders
        self._compiler = compiler
        self._box = box
        self._uids = uids
        self._null = os.open(os.devnull, os.O_RDWR)
        self._usage = meter.Meter(has_own_cgroup=uids is not None)
        self._judge = _Stream()
        # Uids are the kernel's, not the container's, and so are their quotas: two slots of one
        # machine must not use the same ones.
        self._serial = int.from_bytes(os.urandom(4), "big")
        self._flight: deque[_Test] = deque()  # the current test, and the one after it
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._poll.register(orders.events, select.POLLIN)

    def serve(self) -> None:
        """Raises EOFError where the judge or the gate is gone."""
        self._judge.write(frames.pack(frames.READY, frames.NO_REQUEST, {}))
        try:
            while True:
                if self._judge.next_is(frames.PROGRAM):
                    self._serve_program(self._judge.frames.popleft())
                else:
                    self._judge.frames.popleft()  # of a program that is over
        except EOFError:
            self._abandon_flight()
            raise

    def _serve_program(self, program: frames.Frame) -> None:
        """Run its tests until one does not end well, or the judge has seen enough."""
        fields = program.fields
        prelude = fields["prelude"].encode("utf-8", "surrogatepass")
        work = Work(
            program=self._compiler.marshalled(prelude, program.payload),
            entry_point=fields["entry_point"],
            cpu_s=fields["cpu_s"],
            memory_mb=fields["memory_mb"],
        )
        self._usage.rest()
        has_one_test = fields["tests"] == 1
        self._orders.start(work, self._serial + 1, has_one_test=has_one_test)
        for position in range(fields["tests"]):
            if not self._flight:
                if not self._judge.next_is(frames.TEST):
                    break
                self._launch(work, fields["wall_s"])
            test = self._flight[0]
            if not self._see_through(test, work if position else None, fields["wall_s"]):
                break
            if self._conclude(test).outcome != "OK":
                break
        self._abandon_flight()
        if not has_one_test:
            self._orders.end()
        if self._compiler.is_gone:
            raise _Dirty("a program has ended the compiler")

    def _launch(self, work: Work, wall_s: float) -> None:
        """Make ready the next test and have it started once the one before it has ended. The
        child's ends of the pipes belong to its uid, or it could not open /dev/stdin."""
        frame = self._judge.frames.popleft()
        self._serial += 1
        uid = uid_of(self._uids, self._serial)
        directory = f"{self._box}/{self._serial}"
        os.mkdir(directory, 0o700)
        stdin, feed = os.pipe()
        report, channel = os.pipe()
        stdout, printed = (None, self._null) if work.entry_point else os.pipe()
        if uid is not None:
            os.chown(directory, uid, uid)
            os.fchown(stdin, uid, uid)
            if stdout is not None:
                os.fchown(printed, uid, uid)
        for descriptor in (feed, report, stdout):
            if descriptor is not None:
                os.set_blocking(descriptor, False)
        limits = watch.Limits(work.cpu_s, wall_s, work.memory_mb, frame.fields["output_bytes"])
        pipes = watch.Pipes(feed, stdout, report)
        test_watch = watch.Watch(pipes, frame.payload, limits, self._usage)
        self._flight.append(_Test(frame.request, self._serial, uid, test_watch))
        self._orders.send_test(self._serial, (stdin, printed, channel))
        for descriptor in {stdin, channel, printed} - {self._null}:
            os.close(descriptor)

    def _see_through(self, test: _Test, work_ahead: Work | None, wall_s: float) -> bool:
        """Wait for the test to end; meanwhile make the next one ready, where `work_ahead` is given:
        not while a first test runs, which may fail. False where the judge has called it off."""
        test.watch.start(time.monotonic())
        watched: set[int] = set()
        timeout_s = _LAZY_S
        try:
            while True:
                waiting = self._judge.frames
                if any(frame.kind != frames.TEST for frame in waiting):
                    return False
                if waiting and work_ahead is not None and len(self._flight) == 1:
                    self._launch(work_ahead, wall_s)
                self._turn(timeout_s, test)
                if test.end is not None:
                    return True
                for descriptor in watched - test.watch.open:
                    self._poll.unregister(descriptor)
                for descriptor in test.watch.open - watched:
                    is_feed = descriptor == test.watch.feed
                    self._poll.register(descriptor, select.POLLOUT if is_feed else select.POLLIN)
                watched = set(test.watch.open)
                self._look_for_pid(test)
                test.watch.look(time.monotonic(), test.pid)
                if test.watch.is_stopped:
                    test.kill()
                timeout_s = _KILL_TICK_S if test.watch.is_stopped else watch.TICK_S
        finally:
            for descriptor in watched:
                self._poll.unregister(descriptor)

    def _turn(self, timeout_s: float, test: _Test | None = None) -> None:
        """Serve what is ready: the judge, the gate, the test's pipes."""
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            if descriptor == 0:
                self._judge.read()
            elif descriptor == self._orders.events:
                self._take_events()
            elif test is not None:
                test.watch.serve(descriptor)

    def _take_events(self) -> None:
        for event in self._orders.read_events():
            if event.kind == OVER:
                if event.status or not event.is_clean:
                    raise _Dirty(f"a stem ended with status {event.status}")
                continue
            test = next(test for test in self._flight if test.end is None)
            self._look_for_pid(test)
            test.end = event

    def _look_for_pid(self, test: _Test) -> None:
        if test.pid is None:
            test.pid = self._orders.read_pid()

    def _conclude(self, test: _Test) -> watch.Ending:
        """Answer the judge. Raises _Dirty where the test left something behind."""
        assert test.end is not None
        ending = test.watch.ending(test.end)
        if ending.outcome == "RE" and not test.watch.was_set_up:
            raise _Dirty(f"test {test.serial} could not be set up")
        self._flight.popleft()
        is_clean = test.end.is_clean and not (
            # The next test, where it is under way, has memory of its own.
            not self._flight and test.watch.was_looked_at and self._usage.has_grown()
        )
        result = {
            "outcome": ending.outcome,
            "detail": ending.detail,
            "cpu_s": ending.cpu_s,
            "wall_s": ending.wall_s,
            "peak_mb": ending.peak_mb,
            "is_wall_only": ending.is_wall_only,
            "has_output": ending.output is not None,
            "is_dirty": not is_clean,
        }
        self._judge.write(frames.pack(frames.RESULT, test.request, result, ending.output or b""))
        if not is_clean:
            raise _Dirty(f"test {test.serial} left something behind")
        return ending

    def _abandon_flight(self) -> None:
        """End the tests whose results nobody wants. Raises _Dirty where that does not succeed."""
        deadline = time.monotonic() + 2 * sweep.PATIENCE_S
        while self._flight:
            test = self._flight[0]
            if test.end is None:
                if time.monotonic() > deadline:
                    raise _Dirty(f"test {test.serial} does not end")
                self._look_for_pid(test)
                test.kill()
                if select.select([self._orders.events], [], [], _KILL_TICK_S)[0]:
                    self._take_events()
                continue
            if not test.end.is_clean:
                raise _Dirty(f"test {test.serial} left something behind")
            test.watch.close()
            self._flight.popleft()
