"""Judge programs against tests, safely: `sandbox` stands alone and needs only a Docker engine.

    from sandbox import Program, Sandbox, TestCase

    tests = (TestCase(stdin="1 2\\n", expected="3\\n"), TestCase(stdin="4 5\\n", expected="9\\n"))
    with Sandbox() as sandbox:
        verdict = sandbox.judge(Program("print(sum(map(int, input().split())))", tests))
    print(verdict.status, verdict.tests_passed)

A `Sandbox` is one slot, a warm container with no network, no privileges and no memory of what it
ran before. `judge_all` takes many programs; `SandboxPool(slots)` has the same methods and several
slots, and `sandbox.actor.SandboxActor` brings them to a Ray cluster. Without blocking an event
loop:

    import asyncio
    from sandbox import Program, Sandbox, TestCase

    async def main():
        tests = (TestCase(args="[[3, 1]]", expected="[1, 3]"), TestCase(args="[[]]", expected="[]"))
        with Sandbox() as sandbox:
            program = Program("def f(a): return sorted(a)", tests, entry_point="f")
            verdict = await sandbox.judge_async(program)
        print(verdict.status, verdict.tests_passed)

    asyncio.run(main())

Expected outputs never enter the container, so no program can read or forge them; the exception are
tests that are scripts (see `TestCase`), which every verdict counts. Where a program is at fault the
verdict says how (WA, CE, RE, TLE, MLE, OLE); INFRA means that the sandbox failed and says nothing
about the program. `Sandbox("unsafe-process")` needs no engine and protects from honest mistakes
only: its verdicts say `isolation=none`.
"""

from sandbox.judge import IMAGE, Sandbox
from sandbox.pool import SandboxPool
from sandbox.protocol import (
    Comparator,
    Isolation,
    Limits,
    Program,
    Status,
    TestCase,
    Verdict,
)
from sandbox.transport import SandboxUnavailable

__all__ = [
    "IMAGE",
    "Comparator",
    "Isolation",
    "Limits",
    "Program",
    "Sandbox",
    "SandboxPool",
    "SandboxUnavailable",
    "Status",
    "TestCase",
    "Verdict",
]
