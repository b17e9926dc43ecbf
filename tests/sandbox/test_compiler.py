"""What is compiled apart from the program's own process, and what becomes of the rest."""

import io
import marshal
import subprocess
import sys
from types import CodeType
from typing import Any

import pytest

from sandbox import Limits, Program, Sandbox, Status, TestCase
from sandbox.compiler import _MOST_BYTES

TESTS = (TestCase(stdin="20 22\n", expected="42\n"),) * 2
PADDING = "\n#" + "x" * _MOST_BYTES
# Each `finally` is compiled twice, once for the way out by an exception.
NESTED_FINALLY = (
    "".join(f"{' ' * i}try: x\n{' ' * i}finally:\n" for i in range(16)) + " " * 16 + "x"
)


def marshalled(*programs: tuple[bytes, bytes], most_cpu_s: float = 0.5) -> list[Any]:
    """What a compiler in a process of its own makes of them, one after another; whether it has
    ended comes last."""
    code = f"""
import socket, sys
from sandbox import compiler
compiler._MOST_CPU_S = {most_cpu_s}
ours, theirs = socket.socketpair()
compiler.open_compiler(theirs.detach(), has_own_uid=False)
ours = compiler.Compiler(ours)
for prelude, code in {programs!r}:
    sys.stdout.buffer.write(ours.marshalled(prelude, code))
print(ours.is_gone, end="")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    told = io.BytesIO(done.stdout)
    return [*(marshal.load(told) for _ in programs), told.read() == b"True"]


def run(*parts: object) -> dict[str, object]:
    names: dict[str, object] = {}
    for part in parts:
        assert isinstance(part, CodeType)
        exec(part, names)
    return names


def test_prelude_and_code_are_compiled_each_for_itself() -> None:
    prelude = b"from __future__ import annotations\nx = 1"
    code = b"'doc'\nfrom __future__ import division\ndef f(a: nothing = x): return a"
    (first, second), bare, is_gone = marshalled((prelude, code), (b"", b"y = 2"))
    assert (first.co_filename, second.co_filename) == ("prelude.py", "program.py")
    with pytest.raises(NameError, match="nothing"):  # the prelude's future is not the code's
        run(first, second)
    assert bare[0] == b""
    assert run(bare[1])["y"] == 2
    assert not is_gone


@pytest.mark.parametrize(
    "broken", [b"def f(:", b"x\0y", b"\xff", "'\ud800'".encode("utf-8", "surrogatepass")]
)
def test_what_does_not_compile_stays_as_it_is_and_harms_no_other(broken: bytes) -> None:
    deep, wide = b"-" * 5000 + b"1", b"x" * (_MOST_BYTES + 1)
    texts = [(b"", broken), (broken, b"x"), (b"", deep), (b"", wide)]
    *answers, right, is_gone = marshalled(*texts, (b"", b"y = 2"))
    assert answers == texts
    assert run(right[1])["y"] == 2
    assert not is_gone


def test_a_source_that_takes_too_much_ends_the_compiler_and_is_not_lost() -> None:
    large = NESTED_FINALLY.encode()
    slow = b"a;" * 30_000
    assert marshalled((b"", large), (b"", b"y = 2")) == [(b"", large), (b"", b"y = 2"), True]
    assert marshalled((b"", slow), most_cpu_s=0.01) == [(b"", slow), True]


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("print(sum(map(int, input().split())))", Status.AC, ""),
        ("\n\nprint(1 / 0)", Status.RE, "line 3: ZeroDivisionError: division by zero"),
        ("import sys\nprint(sys._getframe().f_code.co_filename)", Status.WA, "program.py"),
        ("print('a' is 'b', 0 if 1else 2)", Status.WA, "False 0"),  # with warnings
        ("def f(:", Status.CE, "SyntaxError"),
    ],
)
def test_a_program_gets_the_same_verdict_wherever_it_is_compiled(
    process_sandbox: Sandbox, code: str, status: Status, detail: str
) -> None:
    verdicts = [process_sandbox.judge(Program(text, TESTS)) for text in (code, code + PADDING)]
    for verdict in verdicts:
        assert verdict.status is status, verdict
        assert detail in verdict.detail
    assert verdicts[0].detail == verdicts[1].detail


def test_a_prelude_is_compiled_once_and_runs_for_each_program(process_sandbox: Sandbox) -> None:
    for offset in (40, 41):
        code = f"print(x + {offset})"
        for text in (code, code + PADDING):
            tests = (TestCase(stdin="", expected=f"{offset + 2}\n"),) * 2
            verdict = process_sandbox.judge(Program(text, tests, prelude="x = 2"))
            assert verdict.status is Status.AC, verdict


def test_a_program_that_ends_the_compiler_gets_its_verdict_and_the_next_one_too(
    process_sandbox: Sandbox,
) -> None:
    limits = Limits(memory_mb=512)
    right = Program("print(42)", TESTS, limits=limits)
    ends_it = Program(f"x = 1\n{NESTED_FINALLY}\nprint(42)", TESTS, limits=limits)
    runners = []
    for program in (right, ends_it, right):
        verdict = process_sandbox.judge(program)
        assert (verdict.status, verdict.tests_passed) == (Status.AC, 2), verdict
        runners.append(process_sandbox._session)
    # It is the next program that finds the runner gone, and gets another.
    assert runners[0] is runners[1] is not runners[2]
