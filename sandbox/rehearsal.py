"""What every judged program finds warm, the other half: an interpreter that has worked.

Runs inside the sandbox, standard library only. The first compilation, the first look at a type's
attributes, the first calls of a function all write to the interpreter's own memory. Done here, once
and before any program is there, they are spared to every child, which would copy a page for each.
"""

import gc
import os
import sys

from sandbox import child, values

_TIMES = 10  # the interpreter adapts a function to its arguments at the eighth call
_INPUT = b"3\n1 2 -3\n4 5\n"
_PROGRAM = '''
import sys
from collections import deque


def main():
    """Read numbers, keep some of them, print their sum."""
    numbers = read_numbers()
    kept = deque(number for number in numbers if number >= 0)
    print(total(kept), sorted({*numbers})[0])


def read_numbers():
    count = int(sys.stdin.readline())
    numbers = list(map(int, input().split()))[:count]
    return numbers + [int(word) for word in sys.stdin.read().split()]


def total(numbers):
    result, seen = 0, {}
    for position, number in enumerate(numbers):
        seen[number] = f"{position} {number}"
        result += number
    return result


class Solution:
    def add(self, left: int, right: list[int]) -> list[int]:
        return [left + number for number in right]


main()
'''
_CALL = ([1, [2, 3]], {})


def rehearse() -> None:
    """Run a small program a few times, as a child would, through streams of its own."""
    streams, recursion_limit, path = (sys.stdin, sys.stdout), sys.getrecursionlimit(), [*sys.path]
    with open(os.devnull, "w") as sys.stdout:
        for _ in range(_TIMES):
            stdin, feed = os.pipe()
            os.write(feed, _INPUT)
            os.close(feed)
            with open(stdin) as sys.stdin:
                code = compile(_PROGRAM, "program.py", "exec", dont_inherit=True)
                child.prepare(0)
                if child.run_program(b"", code) != 0:
                    raise RuntimeError("the rehearsal failed")
            values.encode(values.decode(values.encode(_CALL)))
    sys.stdin, sys.stdout = streams
    sys.setrecursionlimit(recursion_limit)
    sys.path[:] = path
    gc.collect()
