"""An interpreter in huge pages, before anything is forked from it.

Runs inside the sandbox, standard library only. To fork and to end takes as long as there are pages.
A fork copies no page tables of a file, so each child finds the code of its interpreter page by page
again, and gives it back page by page when it ends: a seventh of what a short test costs. Where that
code is a copy in huge pages, one entry maps two megabytes of it, and a fork copies the entry.

Nothing is moved before the kernel is known to have had huge pages for it; where it has none, or is
not Linux on x86-64, everything stays as it was.
"""

import ctypes
import os
import re
from typing import NamedTuple

_HUGE = 2 << 20  # bytes of a huge page, on x86-64

_READ, _WRITE, _EXECUTE = 1, 2, 4
_PRIVATE_ANONYMOUS = 0x22
_MADV_HUGEPAGE = 14
_MAY_MOVE_TO_FIXED = 3  # MREMAP_MAYMOVE | MREMAP_FIXED
_FAILED = ctypes.c_void_p(-1).value


_libc = ctypes.CDLL(None, use_errno=True)
_address, _size, _number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_libc.mmap.argtypes = (_address, _size, _number, _number, _number, ctypes.c_long)
_libc.mmap.restype = _libc.mremap.restype = _address
_libc.munmap.argtypes = (_address, _size)
_libc.madvise.argtypes = _libc.mprotect.argtypes = (_address, _size, _number)
_libc.mremap.argtypes = (_address, _size, _size, _number, _address)


class _Mapping(NamedTuple):
    """Addresses of one kind of memory, as in /proc/self/maps."""

    start: int
    end: int
    mode: str
    file: str

    def whole(self) -> "_Mapping":
        """Its huge pages, as far as it fills them."""
        start = -(-self.start // _HUGE) * _HUGE
        return self._replace(start=start, end=max(start, self.end // _HUGE * _HUGE))

    @property
    def size(self) -> int:
        return self.end - self.start


def move_code() -> int:
    """Copy the code and constants of this process, as far as they fill huge pages, and put the
    copy in their place; returns the bytes moved. To be called while there is one thread."""
    code: list[_Mapping] = []
    for mapping in _mappings():
        if mapping.file.startswith("/") and mapping.mode in ("r--p", "r-xp"):
            if code and (code[-1].end, code[-1].file) == (mapping.start, mapping.file):
                before = code.pop()
                mode = max(before.mode, mapping.mode)  # with code in it
                mapping = mapping._replace(start=before.start, mode=mode)
            code.append(mapping)
    blocks = [mapping.whole() for mapping in code if mapping.mode == "r-xp"]
    return sum(block.size for block in blocks if block.size and _move(block))


def _mappings() -> list[_Mapping]:
    if os.uname().machine != "x86_64":
        return []
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, mode, _, _, _, *file = line.split(maxsplit=5)
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append(_Mapping(start, end, mode, file[0].rstrip() if file else ""))
    return found


def _move(block: _Mapping) -> bool:
    room = _libc.mmap(None, block.size + _HUGE, _READ | _WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if room == _FAILED:
        return False
    copy = -(-room // _HUGE) * _HUGE
    moved = False
    if _libc.madvise(copy, block.size, _MADV_HUGEPAGE) == 0:
        ctypes.memmove(copy, block.start, block.size)
        if _is_huge(copy, block.size):
            # Refused where a security module forbids code in memory that was written to.
            moved = _libc.mprotect(copy, block.size, _READ | _EXECUTE) == 0 and (
                _libc.mremap(copy, block.size, block.size, _MAY_MOVE_TO_FIXED, block.start)
                == block.start
            )
    if not moved:
        _libc.munmap(room, block.size + _HUGE)
        return False
    if copy > room:
        _libc.munmap(room, copy - room)
    if copy < room + _HUGE:
        _libc.munmap(copy + block.size, room + _HUGE - copy)
    return True


def _is_huge(start: int, size: int) -> bool:
    """Whether the kernel gave huge pages alone: it may have had none left, or give none."""
    with open("/proc/self/smaps") as smaps:
        text = smaps.read()
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        low, high = (int(address, 16) for address in mapping.split(maxsplit=1)[0].split("-"))
        if low <= start < high:
            found = re.search(r"\nAnonHugePages: *(\d+) kB", mapping)
            return found is not None and int(found[1]) << 10 >= size
    return False
