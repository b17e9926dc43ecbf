"""The guard inside the sandbox: forks a fresh process per test and says how it ended.

Standard library only; shipped by `boot.py`. Three generations of processes keep secrets apart:

- the *gate* (`serve`) waits for a program to arrive and forks a stem without reading a byte of it;
- the *stem* reads one program, serves its tests one after another, and exits;
- a *child* is forked when its test has arrived but has not been read: it inherits its own program
  and nothing else, no other program's text, no request id, no test before it is given its own.

A child has its own uid, its own 0700 directory, rlimits, real pipes, and one pipe to its stem.
The stem is a child subreaper, so every process that a test leaves behind becomes its child: "no
child left" and "the directory could be removed" prove that a test left nothing (`sweep.py`). Where
that fails the result says `dirty`, the gate ends, and the judge starts a new container. What this
does not stop is a kernel exploit; see the README.

Needs Linux 5.3 (pidfd). Works with cgroup v1 and v2.
"""

import gc
import os
import resource
import select
import sys
import traceback
from contextlib import suppress
from functools import partial

from sandbox import child, frames, meter, sweep, syscalls, watch

_PR_SET_CHILD_SUBREAPER = 36
_FIRST_UID = 1 << 16
_UIDS_PER_PROGRAM = 251

_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: child.OPEN_FILES,
    resource.RLIMIT_FSIZE: 32 << 20,
    resource.RLIMIT_STACK: 128 << 20,  # C recursion (repr, lru_cache) as deep as judges allow
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_MEMLOCK: 0,
}
# Address space beyond the memory limit. Resident memory decides MLE; reserved but untouched memory
# (a 512 MB stack for a recursive thread, numpy's arenas) is an honest idiom.
_RESERVE_MB = 768
_PROCESSES = 40  # of one uid, threads included


def serve(box: str, own_uids: bool) -> None:
    """The gate: one stem per program, until the judge closes the stream."""
    _adopt_orphans()
    os.umask(0o077)
    limits = _LIMITS | ({resource.RLIMIT_NPROC: _PROCESSES} if own_uids else {})
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(limit, (most, most))
    uids = _uids() if own_uids else None
    os.chmod(box, 0o711)  # a test may enter its own directory, and list no others
    if own_uids:
        syscalls.narrow()
    usage = meter.Meter(has_own_cgroup=own_uids)
    # Uids are the kernel's, not the container's, and so are their quotas: two slots of one machine
    # must not use the same ones.
    first = int.from_bytes(os.urandom(4), "big")
    gc.collect()
    gc.disable()
    gc.freeze()  # a child that collects must not touch, and so copy, the pages of the warm heap
    _send(frames.pack(frames.READY, frames.NO_REQUEST, {"python": sys.version.split()[0]}))
    arrivals = select.poll()
    arrivals.register(0, select.POLLIN)
    served = 0
    while arrivals.poll()[0][1] & select.POLLIN:  # else the judge has closed the stream
        serial = first + served * _UIDS_PER_PROGRAM
        stem = os.fork()
        if stem == 0:
            status = 1
            try:
                _adopt_orphans()
                status = _Stem(box, uids, serial, usage).serve_program()
            except EOFError:
                pass  # the judge is gone
            except BaseException:  # noqa: BLE001 - the gate must not go on as a second copy
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        served += 1
        _, status = os.waitpid(stem, 0)
        if status != 0 or not sweep.no_child_left():
            sys.exit(f"the stem of program {served} ended with status {status}")
    if not own_uids:
        with suppress(OSError):  # a judge that was killed cannot remove it
            os.rmdir(box)


class _Stem:
    """Serves one program."""

    def __init__(self, box: str, uids: range | None, serial: int, usage: meter.Meter) -> None:
        self._null = os.open(os.devnull, os.O_RDWR)
        self._box = box
        self._uids = uids
        self._serial = serial
        self._usage = usage

    def serve_program(self) -> int:
        """Read the program that has arrived and run its tests as they come. Returns the exit code:
        0, or 1 where something of a test may have been left behind."""
        frame = frames.read(_receive)
        fields = frame.fields
        work = child.Work(
            code=frame.payload,
            is_compiled=False,
            entry_point=fields["entry_point"],
            cpu_s=fields["cpu_s"],
            memory_mb=fields["memory_mb"],
        )
        # For the stem as well: it is inherited, and set once.
        space = (fields["memory_mb"] + _RESERVE_MB) << 20
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        while True:
            uid = self._next_uid()
            directory = f"{self._box}/{self._serial}"
            os.mkdir(directory, 0o700)
            if uid is not None:
                os.chown(directory, uid, uid)
            try:
                kind = frames.read_kind(_receive)
                if kind == frames.END:
                    frames.read_rest(kind, _receive)
            except EOFError:  # the judge is gone
                kind = frames.END
            if kind == frames.END:
                os.rmdir(directory)
                return 0
            watched = _fork(work, directory, uid, self._null)
            test = frames.read_rest(kind, _receive)
            limits = watch.Limits(
                fields["cpu_s"], fields["wall_s"], fields["memory_mb"], test.fields["output_bytes"]
            )
            ending = watched.run(
                test.payload, limits, self._usage, partial(sweep.kill_processes, uid)
            )
            if ending.compiled is not None and not work.is_compiled:  # else not ours to believe
                work = work._replace(code=ending.compiled, is_compiled=True)
            is_clean = sweep.leave_nothing(directory, uid)
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
            _send(frames.pack(frames.RESULT, test.request, result, ending.output or b""))
            if not is_clean:
                return 1

    def _next_uid(self) -> int | None:
        self._serial += 1
        return None if self._uids is None else self._uids[self._serial % len(self._uids)]


def _fork(work: child.Work, directory: str, uid: int | None, null: int) -> watch.Watch:
    """A child that waits for its input. Its ends of the pipes belong to its uid, or it could not
    open /dev/stdin; a call prints to /dev/null (`null`)."""
    stdin, feed = os.pipe()
    report, channel = os.pipe()
    stdout, printed = (None, null) if work.entry_point else os.pipe()
    if uid is not None:
        os.fchown(stdin, uid, uid)
        if stdout is not None:
            os.fchown(printed, uid, uid)
    pid = os.fork()
    if pid == 0:
        try:
            child.become(work, directory, uid, stdin, printed, null, channel)
        finally:
            os._exit(1)
    for descriptor in {stdin, channel, printed} - {null}:
        os.close(descriptor)
    for descriptor in (feed, report, stdout):
        if descriptor is not None:
            os.set_blocking(descriptor, False)
    return watch.Watch(pid, feed, stdout, report)


def _adopt_orphans() -> None:
    """Not inherited by a fork, so each generation asks for itself."""
    child.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _uids() -> range:
    """The uids that tests take turns with: as many as this user namespace has."""
    with open("/proc/self/uid_map") as uid_map:
        top = max(int(line.split()[0]) + int(line.split()[2]) for line in uid_map)
    top = min(top, 1 << 31)
    return range(_FIRST_UID if top > 2 * _FIRST_UID else 1000, top - 8)


def _receive(count: int) -> bytes:
    chunks = []
    while count:
        chunk = os.read(0, min(count, 1 << 20))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def _send(frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(1, view) :]
