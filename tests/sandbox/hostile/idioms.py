# ruff: noqa: E501 - programs are written as their authors would
"""Right programs: every way to read standard input, to print and to end that people use."""

from sandbox import TestCase
from tests.sandbox.hostile.entry import EXPECTED, Category, Entry

_READING = {
    "input": "a = list(map(int, input().split())); print(sum(a) + int(input()))",
    "stdout_reopened_in_a_cycle": """
        class Printer:
            def __init__(self):
                self.out, self.me = open(1, 'w', closefd=False), self
        printer = Printer()
        printer.out.write('10\\n')""",
    "printed_by_a_destructor_from_globals": """
        import math
        results = [1, 2, 3, 4]
        def total(): return sum(results)
        class Last:
            def __init__(self): self.me = self
            def __del__(self): print(total() + math.floor(0.5))
        last = Last()""",
    "printed_by_a_generator_that_is_left": """
        numbers = [1, 2, 3, 4]
        def walk():
            try:
                for number in numbers: yield number
            finally: print(sum(numbers))
        walker = walk()
        next(walker)""",
    "buffer_kept_by_a_module": """
        import math
        math.out = open(1, 'wb', closefd=False)
        math.out.write(b'10\\n')""",
    "stdout_deleted": "import sys\nprint(10)\ndel sys.stdout",
    "own_module_imported": """
        with open('answer.py', 'w') as file: file.write('TEN = 10')
        import answer
        print(answer.TEN)""",
    "forked_helper_out_of_memory": """
        import os
        if os.fork() == 0: raise MemoryError
        os.wait()
        print(10)""",
    "printed_by_a_destructor": """
        class Last:
            def __del__(self): print(10)
        last = Last()""",
    "stdin_iteration": """
        import sys
        print(sum(int(w) for line in sys.stdin for w in line.split()))""",
    "stdin_read": "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "stdin_readline_as_input": """
        import sys
        input = sys.stdin.readline
        print(sum(map(int, input().split())) + int(input()))""",
    "readline_until_empty": """
        from sys import stdin
        print(sum(int(w) for line in iter(stdin.readline, '') for w in line.split()))""",
    "input_until_end_of_file": """
        total = 0
        while True:
            try: total += sum(map(int, input().split()))
            except EOFError: break
        print(total)""",
    "input_then_read": """
        import sys
        a = input()
        print(sum(map(int, (a + ' ' + sys.stdin.read()).split())))""",
    "buffer_readline": """
        import sys
        r = sys.stdin.buffer.readline
        print(sum(map(int, r().split())) + int(r()))""",
    "buffer_readlines": """
        import sys
        print(sum(map(int, b' '.join(sys.stdin.buffer.readlines()).split())))""",
    "open_0": "print(sum(map(int, open(0).read().split())))",
    "stdin_reopened": "import sys\nsys.stdin = open(0)\nprint(sum(map(int, input().split())) + int(input()))",
    "fdopen_0": "import os\nprint(sum(map(int, os.fdopen(0).read().split())))",
    "os_read_0": "import os\nprint(sum(map(int, os.read(0, 100).split())))",
    "dev_stdin": "print(sum(map(int, open('/dev/stdin').read().split())))",
    "fileinput": """
        import fileinput
        print(sum(int(w) for line in fileinput.input() for w in line.split()))""",
    "fast_io_class": """
        import os, sys
        from io import BytesIO, IOBase
        class FastIO(IOBase):
            newlines = 0
            def __init__(self, file):
                self._fd = file.fileno()
                self.buffer = BytesIO()
                self.writable = 'x' in file.mode or 'r' not in file.mode
                self.write = self.buffer.write if self.writable else None
            def readline(self):
                while self.newlines == 0:
                    b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
                    self.newlines = b.count(b'\\n') + (not b)
                    ptr = self.buffer.tell()
                    self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
                self.newlines -= 1
                return self.buffer.readline()
            def flush(self):
                if self.writable:
                    os.write(self._fd, self.buffer.getvalue())
                    self.buffer.truncate(0), self.buffer.seek(0)
        class IOWrapper(IOBase):
            def __init__(self, file):
                self.buffer = FastIO(file)
                self.flush = self.buffer.flush
                self.writable = self.buffer.writable
                self.write = lambda s: self.buffer.write(s.encode('ascii'))
                self.readline = lambda: self.buffer.readline().decode('ascii')
        sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
        input = lambda: sys.stdin.readline().rstrip('\\r\\n')
        sys.stdout.write(str(sum(map(int, input().split())) + int(input())) + '\\n')
        sys.stdout.flush()""",
    "unread_input": "print(10)",
    "closed_input": "import os\nos.close(0)\nprint(10)",
}  # fmt: skip

_PRINTING = {
    "stdout_buffer": "import sys\nsys.stdout.buffer.write(b'10\\n')",
    "open_1_left_open": "out = open(1, 'w')\nout.write('10\\n')",
    "dev_stdout": "open('/dev/stdout', 'w').write('10\\n')",
    "no_newline_at_the_end": "print(10, end='')",
    "printed_at_exit": "import atexit\natexit.register(print, 10)",
    "replaced_stdout": """
        import sys, io, atexit
        b = io.StringIO()
        old, sys.stdout = sys.stdout, b
        atexit.register(lambda: old.write(b.getvalue()))
        print(10)""",
    "stdout_closed_after_printing": "import sys\nprint(10)\nsys.stdout.close()",
    "redirected_stdout": """
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()) as out: print(10)
        print(out.getvalue().strip())""",
    "float_output": "print('10.000')",
    "non_ascii": "s = 'é日本'\nprint(10 if len(s) == 3 else s)",
    "standard_error_noise": "import sys\nprint('x' * 100000, file=sys.stderr)\nprint(10)",
}  # fmt: skip

_ENDING = {
    "os_write_then_os_exit": "import os\nos.write(1, b'10\\n')\nos._exit(0)",
    "sys_exit_0": "import sys\nprint(10)\nsys.exit()",
    "exit_builtin": "print(10)\nexit()",
    "main_guard": "def main():\n    print(10)\nif __name__ == '__main__':\n    main()",
    "replaced_by_another_process": """
        import os, sys
        os.execv(sys.executable, ['python3', '-c', 'print(sum(map(int, open(0).read().split())))'])""",
}  # fmt: skip

_RUNNING = {
    "dataclass_in_main": """
        from dataclasses import dataclass
        @dataclass
        class P:
            x: int
        print(P(10).x)""",
    "pickled_class_of_main": """
        import pickle
        class P:
            x = 10
        print(pickle.loads(pickle.dumps(P())).x)""",
    "non_daemon_thread": """
        import threading, time
        def f():
            time.sleep(0.05)
            print(10)
        threading.Thread(target=f).start()""",
    "daemon_thread_left_running": """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        print(10)""",
    "thread_pool": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool: print(sum(pool.map(int, open(0).read().split())))""",
    "event_loop": """
        import asyncio
        async def main():
            await asyncio.sleep(0.01)
            print(10)
        asyncio.run(main())""",
    "subprocess": """
        import subprocess, sys
        done = subprocess.run([sys.executable, '-c', 'print(input())'], input='10', text=True, stdout=-1)
        print(done.stdout, end='')""",
    "forked_worker": """
        import os
        r, w = os.pipe()
        if os.fork() == 0:
            os.write(w, b'10')
            os._exit(0)
        os.wait()
        print(os.read(r, 9).decode())""",
    "deep_recursion": """
        import sys
        sys.setrecursionlimit(10**6)
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        print(f(50000) - 49990)""",
    "deep_recursion_in_a_thread": """
        import sys, threading
        sys.setrecursionlimit(10**6)
        threading.stack_size(2**28)
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        t = threading.Thread(target=lambda: print(f(50000) - 49990))
        t.start()
        t.join()""",
    "recursion_up_to_the_default_limit": """
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        print(f(997) - 987)""",
    "cached_recursion": """
        import sys
        from functools import lru_cache
        sys.setrecursionlimit(10**6)
        @lru_cache(None)
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        print(f(20000) - 19990)""",
    "temporary_file": """
        import tempfile
        with tempfile.NamedTemporaryFile('w+') as f:
            f.write('10')
            f.seek(0)
            print(f.read())""",
    "files_left_behind": """
        import os
        os.makedirs('a/b/c')
        open('a/b/c/x', 'w').write('x')
        os.symlink('/etc', 'a/etc')
        print(10)""",
}  # fmt: skip

_LIBRARIES = """
    import numpy as np
    from sortedcontainers import SortedList
    print(int(np.array(SortedList([4, 3, 2, 1])).sum()))"""

_LARGE = (TestCase(stdin="x" * 10_000_000, expected=EXPECTED),)

IDIOMS = (
    *(
        Entry(Category.IDIOM, name, code)
        for group in (_READING, _PRINTING, _ENDING, _RUNNING)
        for name, code in group.items()
    ),
    Entry(Category.IDIOM, "unread_10_mb_input", "print(10)", tests=_LARGE),
    Entry(
        Category.IDIOM,
        "first_byte_of_10_mb_input",
        "import sys\nsys.stdin.buffer.raw.read(1)\nprint(10)",
        tests=_LARGE,
    ),
    Entry(Category.IDIOM, "numpy_and_sortedcontainers", _LIBRARIES, is_for_docker=True),
)
