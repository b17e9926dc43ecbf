# ruff: noqa: E501 - a table of programs reads best with one to a line
"""Programs that are right, wrong or hostile, and the verdict that each must get.

Every one is given `1 2 3` on a line, then `4`, and is right if it prints `10`. An attack on the
system prints it only where it was stopped, and goes on to be AC; a forgery only where it worked.
"""

from dataclasses import dataclass

from sandbox import Status

STDIN = "1 2 3\n4\n"
EXPECTED = "10\n"


@dataclass(frozen=True)
class Case:
    name: str
    code: str
    status: Status
    needs_docker: bool = False  # a mere process cannot be stopped from it


_RIGHT = {
    "input": "a = list(map(int, input().split())); print(sum(a) + int(input()))",
    "stdin_iteration": "import sys\nprint(sum(int(w) for line in sys.stdin for w in line.split()))",
    "stdin_read": "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "input_then_read": "import sys\na = input()\nprint(sum(map(int, (a + ' ' + sys.stdin.read()).split())))",
    "buffer_readline": "import sys\nr = sys.stdin.buffer.readline\nprint(sum(map(int, r().split())) + int(r()))",
    "buffer_readlines": "import sys\nprint(sum(map(int, b' '.join(sys.stdin.buffer.readlines()).split())))",
    "open_0": "print(sum(map(int, open(0).read().split())))",
    "os_read_0": "import os\nprint(sum(map(int, os.read(0, 100).split())))",
    "dev_stdin": "print(sum(map(int, open('/dev/stdin').read().split())))",
    "stdout_buffer": "import sys\nsys.stdout.buffer.write(b'10\\n')",
    "open_1_left_open": "out = open(1, 'w')\nout.write('10\\n')",
    "dev_stdout": "open('/dev/stdout', 'w').write('10\\n')",
    "os_write_then_os_exit": "import os\nos.write(1, b'10\\n')\nos._exit(0)",
    "sys_exit_0": "import sys\nprint(10)\nsys.exit()",
    "exit_builtin": "print(10)\nexit()",
    "replaced_stdout": "import sys, io, atexit\nb = io.StringIO()\nold, sys.stdout = sys.stdout, b\n"
    "atexit.register(lambda: old.write(b.getvalue()))\nprint(10)",
    "unread_input": "print(10)",
    "main_guard": "def main():\n    print(10)\nif __name__ == '__main__':\n    main()",
    "dataclass_in_main": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(10).x)",
    "non_daemon_thread": "import threading, time\n"
    "def f():\n    time.sleep(0.05)\n    print(10)\nthreading.Thread(target=f).start()",
    "deep_recursion": "import sys\nsys.setrecursionlimit(10**6)\n"
    "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nprint(f(50000) - 49990)",
    "deep_recursion_in_a_thread": "import sys, threading\nsys.setrecursionlimit(10**6)\n"
    "threading.stack_size(2**28)\ndef f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\n"
    "t = threading.Thread(target=lambda: print(f(50000) - 49990))\nt.start()\nt.join()",
    "recursion_up_to_the_default_limit": "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nprint(f(990) - 980)",
    "cached_recursion": "import sys\nfrom functools import lru_cache\nsys.setrecursionlimit(10**6)\n"
    "@lru_cache(None)\ndef f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nprint(f(20000) - 19990)",
    "temporary_file": "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n"
    "    f.write('10')\n    f.seek(0)\n    print(f.read())",
    "files_left_behind": "import os\nos.makedirs('a/b/c')\nopen('a/b/c/x', 'w').write('x')\n"
    "os.symlink('/etc', 'a/etc')\nprint(10)",
    "non_ascii": "s = 'é日本'\nprint(10 if len(s) == 3 else s)",
    "standard_error_noise": "import sys\nprint('x' * 100000, file=sys.stderr)\nprint(10)",
    "float_output": "print('10.000')",
}  # fmt: skip

_WRONG = {
    "wrong_value": ("print(11)", Status.WA),
    "silence": ("pass", Status.WA),
    "silent_exit": ("import os\nos._exit(0)", Status.WA),
    "trailing_junk": ("print(10)\nprint('junk')", Status.WA),
    "prefix": ("print(1, end='')", Status.WA),
    "invalid_utf8": ("import os\nos.write(1, b'10\\n\\xff')", Status.WA),
    "syntax_error": ("print(10", Status.CE),
    "null_byte": ("print(10)\0", Status.CE),
    "parser_bomb": ("(" * 5000 + ")" * 5000, Status.CE),
    "exception_after_right_output": ("print(10)\nraise ValueError", Status.RE),
    "right_output_then_exit_1": ("print(10)\nimport sys\nsys.exit(1)", Status.RE),
    "segmentation_fault": ("import ctypes\nprint(10, flush=True)\nctypes.string_at(0)", Status.RE),
    "recursion_without_end": ("def f():\n    return f()\nf()", Status.RE),
    "memory": ("x = bytearray(3 * 2**30)", Status.MLE),
    "memory_in_small_steps": ("x = []\nwhile True:\n    x.append(bytearray(2**20))", Status.MLE),
    "output_flood": ("while True:\n    print('x' * 65536)", Status.OLE),
    "endless_loop": ("while True:\n    pass", Status.TLE),
    "huge_integer": ("print(len(str(7 ** 10 ** 8)))", Status.TLE),
    "endless_thread": (
        "import threading\ndef f():\n    while True:\n        pass\n"
        "threading.Thread(target=f).start()\nprint(10)",
        Status.TLE,
    ),
    "deaf_to_signals": (
        "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True:\n    pass",
        Status.TLE,
    ),
    "stopped": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", Status.TLE),
    "patched_clock": ("import time\ntime.monotonic = time.time = lambda: 0\nwhile True: pass", Status.TLE),
}  # fmt: skip

_FORGERIES = {
    "equal_to_everything": "class E(str):\n    def __eq__(self, o): return True\nprint(E('11'))",
    "frames_hold_no_answer": "import sys, gc\nf = sys._getframe()\nfound = []\n"
    "while f:\n    found += [v for v in f.f_locals.values() if v in ('10\\n', b'10\\n', '10')]\n    f = f.f_back\n"
    "found += [o for o in gc.get_objects() if isinstance(o, (str, bytes)) and o[:3] in ('10\\n', b'10\\n')]\n"
    "print(10 if found else 'nothing')",
    "patched_json": "import json, builtins\njson.dumps = lambda *a, **k: '10'\nbuiltins.print = lambda *a: None",
    "frames_on_the_channel": "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'R\\0\\0\\0\\x0210' * 3)\n"
    "    except OSError: pass",
    "frames_on_the_runners_pipe": "import os, glob\nfor path in glob.glob('/proc/[0-9]*/fd/1'):\n"
    "    if str(os.getpid()) not in path:\n"
    "        try: open(path, 'wb').write(b'\\5' + bytes(16) + b'\\0\\0\\0\\x02{}'); print(10)\n"
    "        except OSError: pass",
}  # fmt: skip

_SYSTEM_ATTACKS = {
    "kill_everyone": ("import os\nos.kill(-1, 9)\nprint(10)", Status.AC),
    "kill_the_runner": (
        "import os\nfor pid in (1, os.getppid()):\n    try: os.kill(pid, 9); print('killed')\n"
        "    except PermissionError: pass\nprint(10)",
        Status.AC,
    ),
    "stop_the_runner": (
        "import os, signal\ntry: os.kill(os.getppid(), signal.SIGSTOP)\n"
        "except PermissionError: print(10)",
        Status.AC,
    ),
    "trace_the_runner": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "print(10 if libc.ptrace(16, os.getppid(), 0, 0) == -1 else 'attached')",
        Status.AC,
    ),
    "read_the_runners_memory": (
        "import os\ntry: open(f'/proc/{os.getppid()}/mem', 'rb').read(1); print('read')\n"
        "except OSError: print(10)",
        Status.AC,
    ),
    "read_the_runners_environment": (
        "import os\ntry: print(open(f'/proc/{os.getppid()}/environ').read())\n"
        "except OSError: print(10)",
        Status.AC,
    ),
    "fork_bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        Status.TLE,
    ),
    "fork_bomb_with_sessions": (
        "import os\nwhile True:\n    try:\n        if os.fork() == 0: os.setsid()\n"
        "    except OSError: pass",
        Status.TLE,
    ),
    "memory_across_forks": (
        "import os, time\nfor _ in range(24):\n    if os.fork() == 0:\n"
        "        x = bytearray(b'x') * (40 * 2**20)\n        time.sleep(60)\ntime.sleep(60)",
        Status.MLE,
    ),
    "process_left_behind": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nprint(10)",
        Status.AC,
    ),
    "full_disk": (
        "with open('x', 'wb') as f:\n    for _ in range(31): f.write(bytes(2**20))\n"
        "with open('y', 'wb') as f:\n    for _ in range(31): f.write(bytes(2**20))\n"
        "with open('z', 'wb') as f:\n    for _ in range(31): f.write(bytes(2**20))",
        Status.RE,
    ),
    "no_inodes_left": (
        "for i in range(10**5): open(str(i), 'w').close()",
        Status.RE,
    ),
    "locked_maze": (
        "import os\nfor i in range(20):\n    os.mkdir('d')\n    os.chdir('d')\n"
        "for i in range(20):\n    os.chdir('..')\n    os.chmod('d', 0)\nos.chmod('.', 0)\nprint(10)",
        Status.AC,
    ),
    "bottomless_directory": (
        "import os\nfor i in range(300):\n    os.mkdir('d')\n    os.chdir('d')\nprint(10)",
        Status.AC,
    ),
    "dropped_executable": (
        "import os, subprocess\nopen('x', 'w').write('#!/bin/sh\\necho 11\\n')\nos.chmod('x', 0o755)\n"
        "try: subprocess.run(['./x'])\nexcept PermissionError: print(10)",
        Status.AC,
    ),
    "write_outside": (
        "for path in ('/x', '/tmp/x', '/etc/x', '/box/x', '/dev/x', '/dev/shm/x', '/run/x'):\n"
        "    try: open(path, 'w'); print(path)\n    except OSError: pass\nprint(10)",
        Status.AC,
    ),
    "no_network": (
        "import socket, os\nnames = [n for _, n in socket.if_nameindex()]\n"
        "routes = open('/proc/net/route').read().splitlines()[1:]\n"
        "print(10 if names == ['lo'] and not routes else (names, routes))",
        Status.AC,
    ),
    "no_root_back": (
        "import os\ntry: os.setuid(0); print('root')\nexcept PermissionError: print(10)",
        Status.AC,
    ),
    "no_capabilities": (
        "caps = [l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'CapBnd'))]\n"
        "print(10 if int(caps[0], 16) == int(caps[1], 16) == 0 else caps)",
        Status.AC,
    ),
    "no_higher_limits": (
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); print('raised')\n"
        "except (ValueError, OSError): print(10)",
        Status.AC,
    ),
    "no_message_queue": (
        "import ctypes, os\nmq = ctypes.CDLL(None).mq_open(b'/q', os.O_CREAT | os.O_RDWR, 0o600, None)\n"
        "print(10 if mq == -1 else 'made')",
        Status.AC,
    ),
    "no_shared_memory": (
        "import ctypes\nprint(10 if ctypes.CDLL(None).shmget(1, 4096, 0o1666) == -1 else 'made')",
        Status.AC,
    ),
    "worse_oom_target_is_the_test": (
        "import os\nscore = os.open('/proc/self/oom_score_adj', os.O_WRONLY)\n"
        "try: os.write(score, b'-1000'); print('immune')\nexcept OSError: print(10)",
        Status.AC,
    ),
    "not_another_tests_files": (
        "import os\ntry: print(os.listdir('/box'))\nexcept PermissionError: print(10)",
        Status.AC,
    ),
    "runner_is_not_importable": (
        "import sys\ntry:\n    import sandbox\n    print('imported')\nexcept ImportError: print(10)",
        Status.AC,
    ),
}  # fmt: skip

_LIBRARIES = """
import numpy as np
from sortedcontainers import SortedList
print(int(np.array(SortedList([4, 3, 2, 1])).sum()))
"""

CASES = [
    *(Case(name, code, Status.AC) for name, code in _RIGHT.items()),
    Case("numpy_and_sortedcontainers", _LIBRARIES, Status.AC, needs_docker=True),
    *(Case(name, code, status) for name, (code, status) in _WRONG.items()),
    *(
        Case(name, code, Status.WA, needs_docker=name == "frames_on_the_runners_pipe")
        for name, code in _FORGERIES.items()
    ),
    *(
        Case(name, code, status, needs_docker=True)
        for name, (code, status) in _SYSTEM_ATTACKS.items()
    ),
]
