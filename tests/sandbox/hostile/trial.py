"""One program's trial: its verdict, a canary after it in the same slot, and a look into the
container from outside, through the engine, for anything that it left behind."""

import time
from dataclasses import dataclass

from sandbox import Sandbox, Verdict
from sandbox.container import ContainerTransport
from tests.sandbox.hostile.entry import Entry

_PATIENCE_S = 2.0  # for what the runner itself is still tidying up when the canary's verdict is out

# Runs as root with every capability, so that no mode hides a file. Processes that the engine puts
# into a container have parent 0, and so has the container's first; the probe leaves itself out.
_PROBE = """
for status in /proc/[0-9]*/status; do
    pid= ppid= uid=
    while read -r key value _; do
        case $key in Pid:) pid=$value;; PPid:) ppid=$value;; Uid:) uid=$value;; esac
    done < "$status"
    [ -n "$pid" ] && { [ "$ppid" != 0 ] || [ "$pid" = 1 ]; } && [ "$uid" = 0 ] && echo runner
    [ -n "$pid" ] && [ "$uid" != 0 ] && echo judged
done 2>/dev/null
find /box /dev/mqueue /dev/pts /tmp /var/tmp -mindepth 1 -not -name ptmx -printf '%y%d\\n'
tail -qn +2 /proc/sysvipc/msg /proc/sysvipc/sem /proc/sysvipc/shm /proc/net/unix /proc/net/tcp
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one entry. `remains` is what the container held beyond what an idle slot
    holds; empty where nothing was left."""

    entry: Entry
    verdict: Verdict
    seconds: float
    is_canary_accepted: bool
    remains: tuple[str, ...]
    was_recycled: bool

    @property
    def is_as_it_must_be(self) -> bool:
        return (
            self.verdict.status is self.entry.status
            and self.entry.why in self.verdict.detail
            and self.is_canary_accepted
            and not self.remains
        )


class Court:
    """One slot in Docker, and what it holds when it is idle."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        assert sandbox.is_healthy()
        self._idle = self._contents()

    def try_(self, entry: Entry) -> Trial:
        container = self._container().id
        started = time.monotonic()
        verdict = self._sandbox.judge(entry.program)
        seconds = time.monotonic() - started
        is_canary_accepted = self._sandbox.is_healthy()
        was_recycled = self._container().id != container
        return Trial(entry, verdict, seconds, is_canary_accepted, self._remains(), was_recycled)

    def _remains(self) -> tuple[str, ...]:
        deadline = time.monotonic() + _PATIENCE_S
        while (contents := self._contents()) != self._idle and time.monotonic() < deadline:
            time.sleep(0.02)
        return () if contents == self._idle else contents

    def _contents(self) -> tuple[str, ...]:
        """Processes by kind, files by kind and depth, kernel objects: each on its line."""
        probe = self._container().exec_run(["sh", "-c", _PROBE], user="0", privileged=True)
        return tuple(sorted(probe.output.decode().splitlines()))

    def _container(self):
        transport = self._sandbox._transport
        assert isinstance(transport, ContainerTransport)
        return transport._container
