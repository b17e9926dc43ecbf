"""A second, narrower system call filter (seccomp) on top of the engine's own.

Runs inside the sandbox, standard library only. The gate asks for it once, and every process after
it inherits it; none can take it off. Engines differ in what they leave open, and a network
namespace does not hold every socket: AF_VSOCK reaches the hypervisor from inside any of them. So:

- sockets are AF_UNIX, AF_INET and AF_INET6 alone (the namespace has only a loopback device);
- io_uring, memfd_secret, tracing and other interfaces of which no judged program has need, and
  which are where kernels were broken, answer EPERM;
- the i386 and x32 entries, by which a filter can be passed, answer ENOSYS.

Checked against `struct seccomp_data` and the tables of `asm/unistd.h`, Linux 6.18.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000

# Classic BPF: load a word, jump if equal, jump if greater or equal, return.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little-endian
_X32 = 0x4000_0000  # x86-64's other table

_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6


class _Table(NamedTuple):
    """One architecture: its AUDIT_ARCH and the numbers of its calls."""

    audit: int
    socket: int
    ptrace: int
    others: tuple[int, ...]


# The same on all architectures: io_uring_setup, _enter, _register, pidfd_getfd, memfd_secret.
_COMMON = (425, 426, 427, 438, 447)
_TABLES = {
    # In this order: userfaultfd, add_key, request_key, keyctl, bpf, perf_event_open,
    # process_vm_readv, process_vm_writev, kcmp, unshare, setns, mount, vmsplice; and modify_ldt.
    "x86_64": _Table(
        0xC000_003E, 41, 101, (323, 248, 249, 250, 321, 298, 310, 311, 312, 272, 308, 165, 278, 154)
    ),
    "aarch64": _Table(
        0xC000_00B7, 198, 117, (282, 217, 218, 219, 280, 241, 270, 271, 272, 97, 268, 40, 75)
    ),
}


def narrow() -> None:
    """Filter the system calls of this process and of all that come of it. Needs no_new_privs, which
    the container has. Raises OSError where the kernel refuses; does nothing on an architecture
    whose numbers are not known here."""
    table = _TABLES.get(os.uname().machine)
    if table is None:
        return
    program = _program(table)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions of eight bytes, and where they are.
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no system call filter")


def _program(table: _Table) -> bytes:
    """Jumps are counted from the next instruction. The verdicts stand at the end."""
    denied = (table.ptrace, *_COMMON, *table.others)
    checks: list[tuple[int, int, str, str]] = [
        (_LOAD, _ARCH, "", ""),
        (_EQUAL, table.audit, "", "absent"),
        (_LOAD, _NUMBER, "", ""),
        (_AT_LEAST, _X32, "absent", ""),
        *((_EQUAL, number, "denied", "") for number in denied),
        (_EQUAL, table.socket, "", "allowed"),
        (_LOAD, _FIRST_ARGUMENT, "", ""),
        *((_EQUAL, family, "allowed", "") for family in _FAMILIES),
    ]
    verdicts = {"denied": _ERRNO | errno.EPERM, "absent": _ERRNO | errno.ENOSYS, "allowed": _ALLOW}
    places = {name: len(checks) + index for index, name in enumerate(verdicts)}

    def jump(here: int, target: str) -> int:
        return places[target] - here - 1 if target else 0

    return b"".join(
        [
            *(
                struct.pack("HBBI", code, jump(here, if_true), jump(here, if_false), operand)
                for here, (code, operand, if_true, if_false) in enumerate(checks)
            ),
            *(struct.pack("HBBI", _RETURN, 0, 0, verdict) for verdict in verdicts.values()),
        ]
    )
