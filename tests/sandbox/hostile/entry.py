"""What a hostile program is, to this suite: its text, and the verdict that it must get."""

from dataclasses import dataclass
from enum import StrEnum
from textwrap import dedent

from sandbox import Limits, Program, Status, TestCase

STDIN = "1 2 3\n4\n"
EXPECTED = "10\n"
SUM = (TestCase(stdin=STDIN, expected=EXPECTED),)


class Category(StrEnum):
    IDIOM = "idiom"  # right, however it reads and writes
    FORGERY = "forgery"  # wrong, and claims to be right
    RUNNER = "runner"  # attacks the processes that judge it
    MACHINE = "machine"  # attacks the machine and its neighbours
    TIME = "time"  # attacks the clock


@dataclass(frozen=True, slots=True)
class Entry:
    """One program. Unless it says otherwise it is given `1 2 3` on a line, then `4`, and is right
    if it prints `10`.

    An attack on runner or machine prints `10` only where it was stopped, and so goes on to be AC; a
    forgery would be AC only where it worked.
    """

    category: Category
    name: str
    code: str
    status: Status = Status.AC
    why: str = ""  # part of the verdict's detail
    cpu_s: float = 4.0  # short only where running out of time is the point
    tests: tuple[TestCase, ...] = SUM
    entry_point: str | None = None
    is_for_docker: bool = False  # nothing in a mere process would stop it

    @property
    def program(self) -> Program:
        limits = Limits(cpu_s=self.cpu_s)
        return Program(dedent(self.code).strip("\n"), self.tests, self.entry_point, limits)


def call(expected: str, args: str = "[]") -> tuple[TestCase, ...]:
    return (TestCase(args=args, expected=expected),)
