# ruff: noqa: E501 - programs are written as their authors would
"""Wrong programs that claim to be right, or that attack whoever reads their answer."""

from sandbox import Status, TestCase
from tests.sandbox.hostile.entry import STDIN, Category, Entry, call

_PLAIN = {
    "wrong_value": ("print(11)", Status.WA, "expected '10', got '11'"),
    "silence": ("pass", Status.WA, ""),
    "silent_exit": ("import os\nos._exit(0)", Status.WA, ""),
    "trailing_junk": ("print(10)\nprint('junk')", Status.WA, "goes on after the expected end"),
    "prefix": ("print(1, end='')", Status.WA, ""),
    "invalid_utf8": ("import os\nos.write(1, b'10\\n\\xff')", Status.WA, "not UTF-8"),
    "answer_on_standard_error": ("import os\nos.write(2, b'10\\n')", Status.WA, ""),
    "signalling_nan": ("print('sNaN')", Status.WA, ""),
    "number_beyond_every_exponent": ("print('1e' + '9' * 60000)", Status.WA, ""),
    "number_of_60000_digits": ("print('9' * 60000)", Status.WA, ""),
    "syntax_error": ("print(10", Status.CE, "line 1"),
    "null_byte": ("print(10)\0", Status.CE, ""),
    "parser_bomb": ("(" * 5000 + ")" * 5000, Status.CE, ""),
    "exception_after_right_output": ("print(10)\nraise ValueError", Status.RE, "line 2: ValueError"),
    "right_output_then_exit_1": ("print(10)\nimport sys\nsys.exit(1)", Status.RE, "exit code 1"),
    "right_output_then_killed": (
        "import os\nprint(10, flush=True)\nos.kill(os.getpid(), 9)", Status.RE, "SIGKILL"
    ),
    "segmentation_fault": (
        "import ctypes\nprint(10, flush=True)\nctypes.string_at(0)", Status.RE, "SIGSEGV"
    ),
    "exception_that_cannot_be_shown": (
        """
        class E(Exception):
            def __str__(self): raise self
        print(10)
        raise E""", Status.RE, "cannot be shown"
    ),
    "recursion_without_end": ("def f():\n    return f()\nf()", Status.RE, "RecursionError"),
    "equal_to_everything": (
        """
        class E(str):
            def __eq__(self, o): return True
        print(E('11'))""", Status.WA, "got '11'"
    ),
    "patched_json_and_print": (
        """
        import json, builtins
        json.dumps = lambda *a, **k: '10'
        builtins.print = lambda *a: None""", Status.WA, ""
    ),
    "right_output_then_exit_1_through_a_patched_exit": (
        """
        import os, sys
        os._exit = lambda code, real=os._exit: real(0)
        print(10)
        sys.exit(1)""", Status.RE, "exit code 1"
    ),
    "outcome_claimed_on_standard_output": (
        """
        import json
        print(json.dumps({'outcome': 'OK', 'status': 'AC', 'tests_passed': 1}))""", Status.WA, ""
    ),
    "frames_on_the_channel": (
        """
        import os
        for fd in range(3, 64):
            try: os.write(fd, b'R\\0\\0\\0\\x0210' * 3)
            except OSError: pass""", Status.WA, ""
    ),
}  # fmt: skip

# The answer is a word that no program can guess, but any program would know if it saw it.
_SECRET = "zq4d1f0a9be2c7385d"
_SECRET_TESTS = (TestCase(stdin=STDIN, expected=_SECRET + "\n"),)
_SEARCHES = {
    "answer_sought_in_frames_and_heap": """
        import gc, re, sys
        seen, found, todo = set(), [], [sys._getframe(), *gc.get_objects()]
        while todo and len(seen) < 300_000:
            thing = todo.pop()
            if id(thing) in seen: continue
            seen.add(id(thing))
            if isinstance(thing, (str, bytes)):
                found += re.findall('zq[0-9a-f]{16}', str(thing))
            else:
                todo += gc.get_referents(thing)
        print(*found)""",
    "answer_sought_in_memory": """
        import ctypes, re
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own
        found = []
        with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
            for line in maps:
                start, end = (int(x, 16) for x in line.split()[0].split('-'))
                try: memory.seek(start); found += re.findall(rb'zq[0-9a-f]{16}', memory.read(end - start))
                except (OSError, ValueError, OverflowError): pass
        print(*found)""",
    "answer_sought_in_files_and_descriptors": """
        import glob, os, re
        found = []
        for path in (*glob.glob('/proc/*/environ'), *glob.glob('/proc/*/cmdline'), *glob.glob('/box/**')):
            try: found += re.findall(rb'zq[0-9a-f]{16}', open(path, 'rb').read())
            except OSError: pass
        for fd in range(3, 128):
            try: os.set_blocking(fd, False); found += re.findall(rb'zq[0-9a-f]{16}', os.read(fd, 1 << 20))
            except OSError: pass
        print(*found)""",
}  # fmt: skip

# A program can write to its report channel whatever the runner could. R is a call's result.
_RAW = """
import os, struct
def report(body, kind=b'R'):
    data = memoryview(kind + struct.pack('>I', len(body)) + body)
    while data: data = data[os.write(3, data):]
"""

_CALLS = {
    "call_that_exits": ("import os\ndef f(): os._exit(0)", Status.WA, "returned nothing"),
    "call_that_equals_everything": (
        """
        class E:
            def __eq__(self, o): return True
        def f(): return E()""", Status.RE, "no plain data"
    ),
    "call_that_returns_a_number_that_equals_everything": (
        """
        class E(int):
            def __eq__(self, o): return True
        def f(): return E(4)""", Status.WA, "expected 10, got 4"
    ),
    "call_that_returns_nan": ("def f(): return float('nan')", Status.WA, "got nan"),
    "call_that_returns_a_lone_surrogate": (r"def f(): return '\udc80'", Status.WA, "got '\\udc80'"),
    "call_that_returns_itself": (
        "def f():\n    a = []\n    a.append(a)\n    return a", Status.RE, "RecursionError"
    ),
    "call_that_returns_a_million_digits": (
        "def f(): return 10 ** 10**6", Status.RE, "ValueError"
    ),
    "call_that_prints_what_it_should_return": ("def f(): print(10)", Status.WA, "got None"),
    "result_cut_short": (_RAW + "def f():\n    os.write(3, b'R\\0\\0\\0\\x0210'[:6])\n    os._exit(0)",
        Status.WA, "returned nothing"),
    "result_of_a_million_digits": (
        _RAW + "def f():\n    report(b'1' * 60000)\n    os._exit(0)", Status.WA, ""
    ),
    "result_no_float_can_hold": (
        _RAW + "def f():\n    report(b'{\"float\":1' + b'0' * 400 + b'}')\n    os._exit(0)",
        Status.WA, "not an encoded value"
    ),
    "result_nested_without_end": (
        _RAW + "def f():\n    report(b'[' * 60000)\n    os._exit(0)", Status.WA, ""
    ),
    "result_nested_and_closed": (
        _RAW + "def f():\n    report(b'[' * 900 + b']' * 900)\n    os._exit(0)", Status.WA, ""
    ),
    "result_with_unknown_tags": (
        _RAW + "def f():\n    report(b'{\"set\":[[1]]}')\n    os._exit(0)", Status.WA, "not an encoded"
    ),
    "result_that_is_no_json": (
        _RAW + "def f():\n    report(b'\\xff\\xfe\\x00')\n    os._exit(0)", Status.WA, ""
    ),
    "result_of_colliding_hashes": (
        _RAW + """
def f():
    report(b'{"set":[' + b','.join(b'%d' % (k * (2**61 - 1)) for k in range(150_000)) + b']}')
    os._exit(0)""", Status.OLE, ""
    ),
    "result_of_ten_million_lists": (
        _RAW + "def f():\n    report(b'[' + b'[],' * 10**7 + b'[]]')\n    os._exit(0)", Status.OLE, ""
    ),
}  # fmt: skip

# In its second test the program hands the runner other code to run in the third.
_SMUGGLED = """
import marshal, os, struct
if open(0).read() == 'second':
    code = marshal.dumps(compile('print(11)', 'program.py', 'exec'))
    os.write(3, b'C' + struct.pack('>I', len(code)) + code)
print(10)
"""
_THREE_TESTS = (
    TestCase(stdin="first", expected="10"),
    TestCase(stdin="second", expected="10"),
    TestCase(stdin="third", expected="11"),
)

_RUNNERS_PIPE = """
    import os, glob
    for path in glob.glob('/proc/[0-9]*/fd/1'):
        if str(os.getpid()) not in path:
            try: open(path, 'wb').write(b'\\5' + bytes(16) + b'\\0\\0\\0\\x02{}'); print(10)
            except OSError: pass"""

FORGERIES = (
    *(
        Entry(Category.FORGERY, name, code, status, why)
        for name, (code, status, why) in _PLAIN.items()
    ),
    *(
        Entry(Category.FORGERY, name, code, Status.WA, "", tests=_SECRET_TESTS)
        for name, code in _SEARCHES.items()
    ),
    *(
        Entry(Category.FORGERY, name, code, status, why, tests=call("10"), entry_point="f")
        for name, (code, status, why) in _CALLS.items()
    ),
    Entry(
        Category.FORGERY,
        "code_smuggled_into_a_later_test",
        _SMUGGLED,
        Status.WA,
        "expected '11', got '10'",
        tests=_THREE_TESTS,
    ),
    Entry(
        Category.FORGERY,
        "frames_on_the_runners_pipe",
        _RUNNERS_PIPE,
        Status.WA,
        is_for_docker=True,
    ),
)
