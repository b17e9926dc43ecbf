"""The sandbox's vocabulary: what is asked of a judge and what it answers.

Standard library only, so that anyone can use it alone, and so that `pipeline` can build on it
without pulling Docker or Ray in.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

MAX_CPU_S = 1e5  # more than a day
MIN_MEMORY_MB = 16  # a Python that does nothing has 11, which count
MAX_MEMORY_MB = 1 << 20  # 1 TiB
_TESTS_IN_FULL = 100


class Status(StrEnum):
    """How a program ended. INFRA says nothing about the program and is never a label.

    Limits that the system itself keeps (disk, files, processes and threads) have no status of their
    own: the program's call fails with an OSError or a RuntimeError, and where it does not handle
    that it ends as RE.
    """

    AC = "AC"  # accepted: every test passed
    WA = "WA"  # wrong answer
    CE = "CE"  # does not compile, or has no entry point
    RE = "RE"  # raised (for want of disk, files or processes, too), or a non-zero exit code
    TLE = "TLE"  # CPU or wall time limit, of one test or of all
    MLE = "MLE"  # memory limit
    OLE = "OLE"  # output limit
    INFRA = "INFRA"  # the sandbox failed, not the program


class Isolation(StrEnum):
    """What stood between the program and the machine."""

    DOCKER = "docker"
    NONE = "none"  # the unsafe process sandbox: resource limits only


class Comparator(StrEnum):
    """How an output is compared with the expected one."""

    LCB = "lcb"  # LiveCodeBench's rules
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test: `stdin` text, or call arguments, or a script.

    `args` (a list) and `kwargs` (a dict) are the text of strict JSON or of Python literals, and so
    is `expected` for a call; for a stdin test `expected` is the text of the standard output.
    LeetCode's nodes are written `TreeNode([3, None, 5])` and `ListNode([1, 2])` among Python
    literals; the program gets objects of its own classes of that name, or of LeetCode's.

    A `script` is Python source that runs after the program, in its process and its namespace, and
    fails by raising (AssertionError: WA, anything else: RE); `expected` is then empty. **It is the
    weaker kind of test.** Judge and judged share a process, so a program that sets out to cheat
    passes: it can redefine what the script calls, return values that equal everything, read the
    expected values from the script's text, or report success by itself. The isolation is the same,
    and honest wrong programs fail as they should. `Verdict.tests_forgeable` counts these tests.
    """

    __test__ = False  # not a pytest class

    expected: str
    stdin: str | None = None
    args: str | None = None
    kwargs: str | None = None
    public: bool = False
    script: str | None = None

    def __post_init__(self) -> None:
        is_call = self.args is not None or self.kwargs is not None
        if (self.stdin is not None) + is_call + (self.script is not None) != 1:
            raise ValueError(
                "a test has either `stdin` or call arguments (`args`, `kwargs`) or a `script`"
            )
        if self.script is not None and self.expected:
            raise ValueError("a test with a `script` expects no output: `expected` must be empty")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one test, and of all tests of a program together. Each overrun but the last is a
    status of its own.

    - `cpu_s`, CPU seconds of one test: TLE. Wall time is `2 * cpu_s + 1` seconds, and up to three
      times that for a test that waits for nothing but a CPU.
    - `total_s`, CPU seconds of all tests: TLE of the test that exceeds it. None is what
      100 tests may take (600 s by default): no program of fewer tests fails by it, and of more only
      one that keeps a slot busy for minutes. Wall time is three times `2 * total_s + 1`.
    - `memory_mb`, MiB of one test: MLE.
    - The output of one test, four times the expected length and 64 KiB: OLE.
    - 32 MiB of one file and 128 open files of one process; in a container also 64 MiB and 4,096
      files on disk, and 40 processes and threads: the program's own call fails, which is RE where
      the program does not handle it.

    Raises ValueError for limits that no clock or machine can keep, or under which nothing runs.
    """

    cpu_s: float = 6.0
    memory_mb: int = 256
    total_s: float | None = None

    @property
    def program_cpu_s(self) -> float:
        """CPU seconds of all tests."""
        return _TESTS_IN_FULL * self.cpu_s if self.total_s is None else self.total_s

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cpu_s) and 0 < self.cpu_s <= MAX_CPU_S):
            raise ValueError(
                f"limits.cpu_s: seconds above 0, at most {MAX_CPU_S:,.0f}; not {self.cpu_s!r}"
            )
        if self.total_s is not None and not (math.isfinite(self.total_s) and self.total_s > 0):
            raise ValueError(f"limits.total_s: seconds above 0; not {self.total_s!r}")
        if not MIN_MEMORY_MB <= self.memory_mb <= MAX_MEMORY_MB:
            raise ValueError(
                f"limits.memory_mb: MiB from {MIN_MEMORY_MB}, which Python itself needs, to "
                f"{MAX_MEMORY_MB:,}; not {self.memory_mb!r}"
            )


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the tests that decide it; `entry_point` None means stdin/stdout, else a
    function name or `Solution().method`. A `prelude` (imports, helpers) runs before the code, in
    its namespace; lines are counted in the code alone."""

    code: str
    tests: tuple[TestCase, ...]
    entry_point: str | None = None
    limits: Limits = Limits()
    comparator: Comparator = Comparator.LCB
    prelude: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests said of one program.

    Tests stop at the first failure, so `tests_run <= tests_total`; `first_failure` is the index of
    the failing test, with `detail` saying why in one line. `cpu_s` and `wall_s` are sums over the
    tests run, `peak_mb` the largest memory of one of them: measured, so not reproducible.

    `tests_forgeable` of the `tests_run` were scripts (see `TestCase`): a cheating program could
    have passed them. Where it is 0, a pass cannot be forged.
    """

    status: Status
    tests_passed: int
    tests_run: int
    tests_total: int
    first_failure: int | None
    detail: str
    cpu_s: float
    wall_s: float
    peak_mb: float
    isolation: Isolation
    comparator: Comparator
    tests_forgeable: int = 0
