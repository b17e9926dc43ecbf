"""The side that compiles. It runs no program, and nothing is forked from it.

Runs inside the sandbox, standard library only. A process that has just been forked copies each page
that it writes to, and to compile a short program there is half of these pages; here they are at
hand. What does not compile here, be it too large, too slow or wrong, is compiled by the process
that is to run it, which has the program's limits and says what is wrong.

Whatever a source does to a compiler, it does to this process, which has a uid of its own. Once that
has ended the sandbox must be given up, but the program's verdict stands.
"""

import _signal  # pyright: ignore[reportMissingImports] - `signal` would bring sixty pages
import _socket
import marshal
import os
import struct
import warnings
from _socket import MSG_WAITALL
from functools import lru_cache
from resource import RLIMIT_AS, setrlimit
from types import CodeType
from typing import NoReturn

from sandbox.linux import fork, wait

_MOST_BYTES = 1 << 16  # of a program
_MOST_CPU_S = 0.5  # for a program
_MEMORY_BYTES = 96 << 20  # of address space, beyond what there is at the start
_PRELUDES = 8  # those of a benchmark are few, and the judge's own
_UID = 65_532  # no test's, and no sweeper's (`sweep.py`)

_WIRE = 3
_LENGTHS = struct.Struct(">2I")  # of prelude and code
_LENGTH = struct.Struct(">I")  # of what was made of them; 0: nothing


class Compiler:
    """The runner's end."""

    def __init__(self, wire: _socket.socket) -> None:
        self._wire = wire
        self.is_gone = False

    def marshalled(self, prelude: bytes, code: bytes) -> bytes:
        """The two, each for itself: as code objects, or as they were."""
        compiled = b""
        if not self.is_gone and len(prelude) + len(code) <= _MOST_BYTES:
            try:
                self._wire.sendall(_LENGTHS.pack(len(prelude), len(code)) + prelude + code)
                (length,) = _LENGTH.unpack(_receive(self._wire, _LENGTH.size))
                compiled = _receive(self._wire, length)
            except (OSError, EOFError):
                self.is_gone = True
        return compiled or marshal.dumps((prelude, code))


def open_compiler(wire: int, *, has_own_uid: bool) -> None:
    """Fork the process at the other end of this descriptor, which is closed. It is the caller's
    grandchild, and as an orphan no longer even that: the caller must be able to prove that it has
    no children."""
    pid = fork()
    if pid == 0:
        try:
            if fork() == 0:
                _become(wire, has_own_uid)
        finally:
            os._exit(0)
    wait(pid)
    os.close(wire)


def _become(wire: int, has_own_uid: bool) -> NoReturn:
    try:
        os.dup2(wire, _WIRE)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(_WIRE):
            os.dup2(null, descriptor)
        os.closerange(_WIRE + 1, os.sysconf("SC_OPEN_MAX"))
        with open("/proc/self/statm") as statm:
            memory = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + _MEMORY_BYTES
        setrlimit(RLIMIT_AS, (memory, memory))
        if has_own_uid:
            os.setresgid(_UID, _UID, _UID)
            os.setresuid(_UID, _UID, _UID)
        warnings.simplefilter("ignore")
        _serve(_socket.socket(fileno=_WIRE))
    finally:
        os._exit(1)


def _serve(wire: _socket.socket) -> NoReturn:
    """Raises EOFError once the runner is gone."""
    while True:
        lengths = _LENGTHS.unpack(_receive(wire, _LENGTHS.size))
        prelude, code = (_receive(wire, length) for length in lengths)
        _signal.setitimer(_signal.ITIMER_PROF, _MOST_CPU_S)  # or this process ends
        try:
            compiled = marshal.dumps((prelude and _compiled_prelude(prelude), _compiled(code)))
        except (SyntaxError, ValueError, RecursionError, OverflowError):
            compiled = b""
        wire.sendall(_LENGTH.pack(len(compiled)) + compiled)


@lru_cache(_PRELUDES)
def _compiled_prelude(prelude: bytes) -> CodeType:
    return compile(prelude, "prelude.py", "exec", dont_inherit=True)


def _compiled(code: bytes) -> CodeType:
    return compile(code, "program.py", "exec", dont_inherit=True)


def _receive(wire: _socket.socket, count: int) -> bytes:
    data = wire.recv(count, MSG_WAITALL) if count else b""
    if len(data) < count:
        raise EOFError
    return data
