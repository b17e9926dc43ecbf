# ruff: noqa: E501 - programs are written as their authors would
"""Attacks on time: programs that run, wait or stop for ever, and that hide what they use."""

from sandbox import Status
from tests.sandbox.hostile.entry import SUM, Category, Entry

# CPU time limit of programs that burn it. On a machine that gives them less than a quarter of a core
# the wall limit comes first.
_BUSY_S = 0.4
_IDLE_S = 0.1  # of programs that wait: the wall limit is 1.2 s, and they are tried twice

_BUSY = {
    "endless_loop": "while True:\n    pass",
    "huge_integer": "print(len(str(7 ** 10 ** 8)))",
    "regular_expression_that_explodes": "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    "endless_thread": """
        import threading
        def f():
            while True:
                pass
        threading.Thread(target=f).start()
        print(10)""",
    "leading_thread_gone": """
        import ctypes, threading
        def f():
            while True:
                pass
        threading.Thread(target=f).start()
        ctypes.CDLL(None).syscall(60, 0)""",
    "deaf_to_signals": """
        import signal
        for s in range(1, 65):
            try: signal.signal(s, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True:
            pass""",
    "patched_clock": """
        import time
        time.monotonic = time.time = time.process_time = lambda: 0
        while True: pass""",
    "replaced_by_itself_again_and_again": """
        import os, sys
        code = 'import os, sys\\nfor i in range(10**6): pass\\nos.execv(sys.executable, ["python3", "-c", sys.argv[1], sys.argv[1]])'
        os.execv(sys.executable, ['python3', '-c', code, code])""",
    "loop_at_exit": "import atexit\nprint(10)\n@atexit.register\ndef f():\n    while True: pass",
    "loop_in_a_destructor": """
        class D:
            def __del__(self):
                while True: pass
        d = D()
        print(10)""",
}  # fmt: skip

_IDLE = {
    "sleep": "import time\ntime.sleep(60)",
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "thread_that_sleeps": """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,)).start()
        print(10)""",
    "wait_for_a_stopped_child": """
        import os, signal
        if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
        print(10, flush=True)
        os.wait()""",
}  # fmt: skip

# There is much to sweep up while whoever ran out of time is still being killed.
_UNTIDY = """
    for i in range(3000): open(str(i), 'w').close()
    while True: pass"""

# The program itself uses no time; its children do.
_HIDDEN = {
    "time_burned_by_a_child": """
        import os, time
        if os.fork() == 0:
            while time.process_time() < 0.7: pass
            os._exit(0)
        os.wait()
        print(10)""",
    "time_burned_by_an_orphan": """
        import os, time
        r, w = os.pipe()
        if os.fork() == 0:
            if os.fork() == 0:
                while time.process_time() < 0.7: pass
                os.write(w, b'10')
                time.sleep(60)
            os._exit(0)
        os.wait()
        print(os.read(r, 9).decode())""",
    "time_burned_by_children_that_nobody_reaps": """
        import os, signal, time
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        r, w = os.pipe()
        if os.fork() == 0:
            while time.process_time() < 0.7: pass
            os._exit(0)
        os.close(w)
        os.read(r, 1)
        time.sleep(0.05)
        print(10)""",
}  # fmt: skip

TIME_ATTACKS = (
    *(
        Entry(Category.TIME, name, code, Status.TLE, "time", _BUSY_S)
        for name, code in _BUSY.items()
    ),
    *(
        Entry(Category.TIME, name, _UNTIDY, Status.TLE, "time", _BUSY_S, tests)
        for name, tests in (("thousands_of_files", SUM), ("thousands_of_files_twice", SUM * 2))
    ),
    *(
        Entry(Category.TIME, name, code, Status.TLE, "wall time", _IDLE_S)
        for name, code in _IDLE.items()
    ),
    *(
        Entry(Category.TIME, name, code, Status.TLE, "time", _BUSY_S, is_for_docker=True)
        for name, code in _HIDDEN.items()
    ),
)
