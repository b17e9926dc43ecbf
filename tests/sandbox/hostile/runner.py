# ruff: noqa: E501 - programs are written as their authors would
"""Attacks on the processes that run the judged program, and on the tests that come after it."""

from sandbox import Status
from tests.sandbox.hostile.entry import Category, Entry

_OTHERS = """
import ctypes, glob, os
libc = ctypes.CDLL(None, use_errno=True)
me = os.getpid()
others = [int(p[6:]) for p in glob.glob('/proc/[0-9]*') if int(p[6:]) != me]
won = [] if len(others) > 1 else ['no process to attack']
def attempt(what, act):
    try: won.append((what, act()))
    except OSError: pass
def syscall(*args):
    if libc.syscall(*args) == -1: raise OSError
"""
_VERDICT = "\nprint(won or 10)"

_STOPPED = {
    "kill_everyone": "import os\nos.kill(-1, 9)\nprint(10)",
    "every_signal_to_every_process": _OTHERS + """
import signal
for pid in others:
    for number in (1, 2, 9, 15, 18, 19, 23, 25):
        attempt(('kill', pid), lambda: os.kill(pid, number))
        if pid > 1: attempt(('group', pid), lambda: os.killpg(pid, number))
        attempt(('thread', pid), lambda: syscall(200, pid, number))
    attempt(('pidfd', pid), lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 9))
""" + _VERDICT,
    "trace_and_rewrite_every_process": _OTHERS + """
class Vector(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
here = ctypes.create_string_buffer(8)
mine = Vector(ctypes.addressof(here), 8)
for pid in others:
    attempt(('attach', pid), lambda: syscall(101, 16, pid, 0, 0))
    attempt(('seize', pid), lambda: syscall(101, 0x4206, pid, 0, 0))
    attempt(('readv', pid), lambda: syscall(310, pid, ctypes.byref(mine), 1, ctypes.byref(mine), 1, 0))
    attempt(('writev', pid), lambda: syscall(311, pid, ctypes.byref(mine), 1, ctypes.byref(mine), 1, 0))
    attempt(('getfd', pid), lambda: syscall(438, os.pidfd_open(pid), 0, 0))
""" + _VERDICT,
    "read_every_process": _OTHERS + """
for pid in others:
    for name in ('mem', 'environ', 'maps', 'auxv', 'stack', 'syscall', 'io', 'pagemap', 'map_files'):
        attempt((name, pid), lambda: os.read(os.open(f'/proc/{pid}/{name}', os.O_RDONLY), 1))
    for name in ('cwd', 'root', 'exe', 'fd/0', 'fd/1'):
        attempt((name, pid), lambda: os.readlink(f'/proc/{pid}/{name}'))
    attempt(('fd', pid), lambda: os.listdir(f'/proc/{pid}/fd'))
""" + _VERDICT,
    "slow_every_process_down": _OTHERS + """
import resource
for pid in others:
    attempt(('nice', pid), lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    attempt(('affinity', pid), lambda: os.sched_setaffinity(pid, {0}))
    attempt(('idle', pid), lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)))
    attempt(('limits', pid), lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)))
    attempt(('io', pid), lambda: syscall(251, 1, pid, 3 << 13))
    attempt(('session', pid), lambda: os.setpgid(pid, 0))
    for name, value in (('oom_score_adj', b'1000'), ('comm', b'x'), ('timerslack_ns', b'9'), ('coredump_filter', b'0')):
        attempt((name, pid), lambda: os.write(os.open(f'/proc/{pid}/{name}', os.O_WRONLY), value))
""" + _VERDICT,
    "signals_by_way_of_a_descriptor": _OTHERS + """
import fcntl, signal, time
r, w = os.pipe()
for pid in (os.getppid(), 1):
    fcntl.fcntl(r, fcntl.F_SETOWN, pid)
    fcntl.fcntl(r, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(w, b'x')
    os.read(r, 9)
time.sleep(0.05)
""" + _VERDICT,
    "descriptors_that_nobody_gave": """
        import os
        print(10 if sorted(map(int, os.listdir('/proc/self/fd')))[:-1] == [0, 1, 2, 3] else os.listdir('/proc/self/fd'))""",
    "environment_of_the_judge": """
        import os
        known = {'PATH', 'LANG', 'HOME', 'TMPDIR', 'PYTHONHASHSEED', 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'MALLOC_ARENA_MAX', 'HOSTNAME', 'LC_CTYPE'}
        print(10 if set(os.environ) <= known else set(os.environ) - known)""",
    "another_tests_files": """
        import os
        try: print(os.listdir('/box'))
        except PermissionError: print(10)""",
    "watching_the_other_tests": """
        import ctypes
        libc = ctypes.CDLL(None)
        watch = libc.inotify_add_watch(libc.inotify_init(), b'/box', 0xfff)
        print(10 if watch == -1 else 'watching')""",
    "runner_imported": """
        import sys
        try:
            import sandbox
            print('imported')
        except ImportError: print(10)""",
    "moved_directory": """
        import os
        here = os.getcwd()
        for act in (lambda: os.rename(here, here + 'x'), lambda: os.mkdir('/box/x'), lambda: os.rmdir(here)):
            try: act(); print('moved')
            except OSError: pass
        print(10)""",
    "privileges_asked_back": """
        import ctypes, os
        libc = ctypes.CDLL(None)
        for act in (lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgroups([0]), lambda: os.setgid(0)):
            try: act(); print('root')
            except PermissionError: pass
        caps = [int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'CapInh', 'CapAmb'))]
        print(10 if not any(caps) and libc.prctl(39, 0, 0, 0, 0) == 1 else caps)""",
    "setuid_programs_of_the_image": """
        import os, subprocess
        found = [os.path.join(r, n) for r, _, names in os.walk('/usr') for n in names if os.path.isfile(os.path.join(r, n)) and os.stat(os.path.join(r, n)).st_mode & 0o6000]
        for path in ['su', 'mount', 'passwd', *found]:
            try: done = subprocess.run([path, '-c', 'id -u'] if 'su' in path else [path], stdin=-3, stdout=-1, stderr=-1, timeout=0.2)
            except (OSError, subprocess.TimeoutExpired): continue
            if done.stdout.strip() == b'0': print('root by', path)
        print(10)""",
}  # fmt: skip

# Right programs that leave something behind: the next program must find nothing of it.
_LITTER = {
    "process_left_behind": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
        print(10)""",
    "daemons_deaf_to_signals": """
        import os, signal, time
        for _ in range(8):
            if os.fork() == 0:
                os.setsid()
                if os.fork(): os._exit(0)
                signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
                while True: time.sleep(1)
        print(10)""",
    "siblings_instead_of_children": """
        import ctypes, os, time
        for _ in range(4):
            if ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0) == 0:  # CLONE_PARENT
                time.sleep(60)
                os._exit(0)
        print(10)""",
    "children_that_wait_ignores": """
        import ctypes, os, time
        for _ in range(4):
            if ctypes.CDLL(None).syscall(56, 0, 0, 0, 0, 0) == 0:  # no SIGCHLD at its end
                time.sleep(60)
                os._exit(0)
        print(10)""",
    "subreaper_of_its_own": """
        import ctypes, os, time
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        for _ in range(3):
            if os.fork() == 0:
                if os.fork() == 0: time.sleep(60)
                os._exit(0)
        print(10)""",
    "thirty_zombies": """
        import os
        for _ in range(30):
            if os.fork() == 0: os._exit(0)
        print(10)""",
    "stopped_children": """
        import os, signal
        for _ in range(4):
            if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
        print(10)""",
    "traced_child": """
        import ctypes, os, time
        if (child := os.fork()) == 0: time.sleep(60)
        if os.fork() == 0:
            ctypes.CDLL(None).ptrace(16, child, 0, 0)
            time.sleep(60)
        time.sleep(0.05)
        print(10)""",
    "exec_of_another_program": """
        import os
        if os.fork() == 0: os.execvp('sleep', ['sleep', '60'])
        print(10)""",
    "abstract_socket_left_to_a_daemon": """
        import os, socket, time
        s = socket.socket(socket.AF_UNIX)
        s.bind('\\0left-behind')
        s.listen()
        if os.fork() == 0: time.sleep(60)
        print(10)""",
    "loopback_server_left_behind": """
        import os, socket, time
        s = socket.create_server(('127.0.0.1', 0))
        if os.fork() == 0: time.sleep(60)
        print(10)""",
    "descriptors_in_flight": """
        import array, os, socket
        for _ in range(20):
            a, b = socket.socketpair()
            a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [b.fileno(), 1]))])
        print(10)""",
    "locked_maze": """
        import os
        for i in range(20):
            os.mkdir('d')
            os.chdir('d')
        for i in range(20):
            os.chdir('..')
            os.chmod('d', 0)
        os.chmod('.', 0)
        print(10)""",
    "bottomless_directory": """
        import os
        for i in range(300):
            os.mkdir('d')
            os.chdir('d')
        print(10)""",
    "files_of_every_kind": """
        import os, socket
        os.mkfifo('fifo')
        socket.socket(socket.AF_UNIX).bind('socket')
        os.symlink('/', 'root')
        os.link('fifo', 'again')
        for name in (b'-rf', b'\\n', b'\\xff\\xfe', b' ', b'x' * 255): open(name, 'w').close()
        os.mkdir('sticky', 0o7000)
        print(10)""",
    "three_thousand_files": "for i in range(3000): open(str(i), 'w').close()\nprint(10)",
    "terminals_left_open": """
        import os, time
        masters = [os.open('/dev/ptmx', os.O_RDWR) for _ in range(60)]
        if os.fork() == 0: time.sleep(60)
        print(10)""",
    "timers_left_pending": """
        import os, signal
        if os.fork() == 0:
            signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
            os.execvp('sleep', ['sleep', '60'])
        print(10)""",
}  # fmt: skip

# Each `finally` is compiled twice, once for the way out by an exception.
_MANY_FINALLY = "".join(f"{' ' * i}try: pass\n{' ' * i}finally:\n" for i in range(16))

RUNNER_ATTACKS = (
    Entry(Category.RUNNER, "breaks_the_compiler", f"{_MANY_FINALLY}{' ' * 16}pass\nprint(10)"),
    *(
        Entry(Category.RUNNER, name, code, is_for_docker=True)
        for name, code in (_STOPPED | _LITTER).items()
    ),
    Entry(
        Category.RUNNER,
        "report_channel_flooded",
        "import os\nprint(10, flush=True)\nwhile True: os.write(3, bytes(1 << 16))",
        Status.OLE,
    ),
    Entry(
        Category.RUNNER,
        "report_that_never_ends",
        "import os\nprint(10, flush=True)\nos.write(3, b'E\\xff\\xff\\xff\\xff')\nos._exit(1)",
        Status.RE,
        "exit code 1",
    ),
    Entry(
        Category.RUNNER,
        "every_descriptor_closed",
        "import os\nos.closerange(0, 128)\nraise ValueError",
        Status.RE,
        "exit code 1",
    ),
)
