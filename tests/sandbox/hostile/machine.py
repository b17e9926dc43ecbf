# ruff: noqa: E501 - programs are written as their authors would
"""Attacks on the machine: memory, processes, disk, network, kernel interfaces."""

from sandbox import Status
from tests.sandbox.hostile.entry import Category, Entry

_MEMORY = {
    "memory_at_once": "x = bytearray(3 * 2**30)",
    "memory_in_small_steps": "x = []\nwhile True:\n    x.append(bytearray(2**20))",
    "memory_shared_and_anonymous": "import mmap\nx = mmap.mmap(-1, 400 << 20)\nfor i in range(0, 400 << 20, 4096): x[i] = 1",
}  # fmt: skip

_MEMORY_IN_DOCKER = {
    "memory_across_forks": """
        import os, time
        for _ in range(24):
            if os.fork() == 0:
                x = bytearray(b'x') * (40 * 2**20)
                time.sleep(60)
        time.sleep(60)""",
    "memory_in_files_of_no_process": """
        import os
        import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own
        open('/proc/self/oom_score_adj', 'w').write('0')
        for i in range(60):
            fd = os.memfd_create(str(i))
            for _ in range(30): os.write(fd, bytes(1 << 20))
        print(10)""",
    "memory_held_by_a_tiny_process": """
        import os, time
        import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own
        open('/proc/self/oom_score_adj', 'w').write('0')
        fds = [os.memfd_create(str(i), 0) for i in range(60)]
        for fd in fds: os.set_inheritable(fd, True)
        if os.fork() == 0: os.execvp('sleep', ['sleep', '60'])
        for fd in fds:
            for _ in range(30): os.write(fd, bytes(1 << 20))""",
    "memory_in_socket_buffers": """
        import os, socket, time
        import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own
        open('/proc/self/oom_score_adj', 'w').write('0')
        def fill():
            held = []
            for _ in range(55):
                pair = socket.socketpair()
                held.append(pair)
                for s in pair:
                    s.setblocking(False)
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                    try:
                        while True: s.send(bytes(1 << 15))
                    except OSError: pass
            return held
        for _ in range(30):
            if os.fork() == 0:
                held = fill()
                time.sleep(60)
        time.sleep(60)""",
}  # fmt: skip

_OVERRUNS = {
    "fork_bomb": (
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass""", Status.TLE, "", 0.5
    ),
    "fork_bomb_with_sessions": (
        """
        import os
        while True:
            try:
                if os.fork() == 0: os.setsid()
            except OSError: pass""", Status.TLE, "", 0.5
    ),
    "fork_bomb_of_dying_parents": (
        """
        import os
        while True:
            try:
                if os.fork(): os._exit(0)
            except OSError: pass""", Status.WA, "", 0.5
    ),
    "thread_bomb": (
        """
        import threading, time
        while True:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()""", Status.RE, "start new thread", 0.5
    ),
    "full_disk": (
        """
        for name in 'xyz':
            with open(name, 'wb') as f:
                for _ in range(31): f.write(bytes(2**20))""", Status.RE, "No space left", 4.0
    ),
    "no_inodes_left": (
        "for i in range(10**5): open(str(i), 'w').close()", Status.RE, "No space left", 4.0
    ),
    "file_beyond_the_limit": (
        "open('x', 'wb').truncate(1 << 40)", Status.RE, "File too large", 4.0
    ),
}  # fmt: skip

_LIBC = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
won = []
def refused(name, result):
    if result != -1: won.append(name)
"""
_VERDICT = "\nprint(won or 10)"

_STOPPED = {
    "oom_score_made_immune": """
        import ctypes, os
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        score = os.open('/proc/self/oom_score_adj', os.O_WRONLY)
        try: os.write(score, b'-1'); print('immune')
        except OSError: print(10)""",
    "limits_raised": """
        import resource
        won = []
        for name in ('AS', 'NOFILE', 'NPROC', 'FSIZE', 'CORE', 'MSGQUEUE', 'MEMLOCK', 'CPU', 'STACK', 'NICE', 'RTPRIO'):
            limit = getattr(resource, 'RLIMIT_' + name)
            try: resource.setrlimit(limit, (-1, -1)); won.append(name)
            except (ValueError, OSError): pass
        print(won or 10)""",
    "dropped_executable": """
        import os, subprocess
        open('x', 'w').write('#!/bin/sh\\necho 11\\n')
        os.chmod('x', 0o4755)
        try: subprocess.run(['./x'])
        except PermissionError: print(10)""",
    "writing_outside": """
        import os
        won = []
        for root, directories, files in os.walk('/'):
            if root == '/': directories[:] = set(directories) - {'proc', 'sys'}
            if os.getcwd() in root: continue
            try: open(root + '/x', 'w').close(); won.append(root)
            except OSError: pass
        print(won or 10)""",
    "kernel_settings": """
        import glob, os
        won = []
        for path in (*glob.glob('/proc/sys/kernel/*'), *glob.glob('/proc/sys/vm/*'), '/proc/sysrq-trigger', *glob.glob('/sys/fs/cgroup/*/*'), *glob.glob('/sys/fs/cgroup/*')):
            try: os.close(os.open(path, os.O_WRONLY)); won.append(path)
            except OSError: pass
        try: os.mkdir('/sys/fs/cgroup/memory/x'); won.append('cgroup')
        except OSError: pass
        print(won or 10)""",
    "devices": """
        import os, stat
        won = []
        for name in ('mem', 'kmsg', 'port', 'sda', 'vda', 'kvm', 'fuse', 'loop-control', 'net/tun', 'vsock', 'vhost-vsock'):
            try: os.open('/dev/' + name, os.O_RDONLY); won.append(name)
            except OSError: pass
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            try: os.mknod('node', kind | 0o600, os.makedev(1, 1)); won.append('mknod')
            except OSError: pass
        print(won or 10)""",
    "namespaces_and_mounts": _LIBC + """
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000, 0x80):
    refused(('unshare', hex(flag)), libc.unshare(flag))
refused('clone', libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0))
refused('chroot', libc.chroot(b'.'))
refused('mount', libc.mount(b'none', b'.', b'tmpfs', 0, None))
refused('umount', libc.umount2(b'/proc/keys', 2))
refused('setns', libc.setns(os.open('/proc/self/ns/net', 0), 0))
""" + _VERDICT,
    "kernel_interfaces_that_no_program_needs": _LIBC + """
buffer = ctypes.create_string_buffer(256)
for name, *args in (
    ('io_uring_setup', 425, 8, buffer), ('userfaultfd', 323, 1), ('bpf', 321, 0, buffer, 64),
    ('perf_event_open', 298, buffer, 0, -1, -1, 0), ('add_key', 248, b'user', b'x', b'y', 1, -3),
    ('keyctl', 250, 0, -3, 1), ('request_key', 249, b'user', b'x', 0, -3), ('memfd_secret', 447, 0),
    ('ptrace', 101, 0, 0, 0, 0), ('kexec_load', 246, 0, 0, 0, 0), ('init_module', 175, 0, 0, b''),
    ('open_by_handle_at', 304, 0, buffer, 0), ('modify_ldt', 154, 0, buffer, 256), ('swapon', 167, b'x', 0),
    ('process_vm_readv', 310, os.getpid(), 0, 0, 0, 0, 0), ('acct', 163, 0), ('settimeofday', 164, buffer, 0),
): refused(name, libc.syscall(*args))
""" + _VERDICT,
    "system_v_ipc": _LIBC + """
refused('shm', libc.shmget(1, 4096, 0o1666))
refused('private shm', libc.shmget(0, 4096, 0o1666))
refused('msg', libc.msgget(1, 0o1666))
refused('sem', libc.semget(1, 1, 0o1666))
""" + _VERDICT,
    "posix_message_queues": _LIBC + """
refused('queue', libc.mq_open(b'/q', os.O_CREAT | os.O_RDWR, 0o600, None))
for act in (lambda: open('/dev/mqueue/q', 'w'), lambda: os.mkdir('/dev/mqueue/d'), lambda: open('/dev/shm/x', 'w')):
    try: act(); won.append('file')
    except OSError: pass
""" + _VERDICT,
    "network": """
        import socket
        won = []
        names = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]
        if names != ['lo']: won.append(names)
        won += open('/proc/net/route').readlines()[1:]
        won += [line for line in open('/proc/net/ipv6_route') if not line.split()[-1] == 'lo']
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try: socket.socket(socket.AF_INET, kind).connect(('192.0.2.1', 53)); won.append('a way out')
            except OSError as error:
                if error.errno != 101: won.append(error)  # ENETUNREACH: no packet was sent
        print(won or 10)""",
    "names_of_the_network": """
        import socket
        try: print(socket.getaddrinfo('example.com', 80))
        except OSError: print(10)""",
    "sockets_that_know_no_network_namespace": """
        import socket
        won = []
        for family in range(50):
            for kind in (1, 2, 3, 5):
                try: socket.socket(family, kind); won.append((family, kind))
                except OSError: pass
        families = {family for family, kind in won} - {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}
        raw = [kind for family, kind in won if kind == 3 and family != socket.AF_UNIX]
        print(10 if not families and not raw else (families, raw))""",
    "old_system_call_tables": """
        import ctypes, mmap, platform
        won = []
        if platform.machine() == 'x86_64':
            def socket_by(code):
                page = mmap.mmap(-1, 4096, prot=7)
                page.write(code)
                call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
                return call()
            # push rbx; mov eax, 359 (socket of i386); mov ebx, 40 (AF_VSOCK); mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
            if socket_by(bytes.fromhex('53b867010000bb28000000b90100000031d2cd805bc3')) >= 0: won.append('i386')
            if ctypes.CDLL(None).syscall(0x40000000 | 41, 40, 1, 0) >= 0: won.append('x32')
        print(won or 10)""",
    "processes_outside": """
        import glob
        print(10 if len(glob.glob('/proc/[0-9]*')) < 8 else glob.glob('/proc/[0-9]*'))""",
    "core_dump": """
        import ctypes, os
        if os.fork() == 0: ctypes.string_at(0)
        os.wait()
        print(10 if not os.listdir() else os.listdir())""",
    "clock_set": """
        import time
        try: time.clock_settime(time.CLOCK_REALTIME, 0); print('set')
        except PermissionError: print(10)""",
}  # fmt: skip

# Greedy but within the limits: it must not be punished for what the kernel can take back.
_WITHIN_LIMITS = {
    "page_cache_filled": """
        import os
        for root, _, names in os.walk('/usr'):
            for name in names:
                try: open(os.path.join(root, name), 'rb').read()
                except OSError: pass
        print(10)""",
    "disk_filled_and_freed_then_memory": """
        import os
        for i in range(2):
            with open('x', 'wb') as f:
                for _ in range(30): f.write(bytes(1 << 20))
            os.unlink('x')
        x = bytearray(b'x') * (200 << 20)
        print(10)""",
    "forty_megabytes_of_arguments": """
        import subprocess
        try: subprocess.run(['true'] + ['x' * 100_000] * 400)
        except OSError: print(10)""",
}  # fmt: skip

MACHINE_ATTACKS = (
    *(Entry(Category.MACHINE, name, code, Status.MLE) for name, code in _MEMORY.items()),
    *(
        Entry(Category.MACHINE, name, code, Status.MLE, is_for_docker=True)
        for name, code in _MEMORY_IN_DOCKER.items()
    ),
    *(
        Entry(Category.MACHINE, name, code, status, why, cpu_s, is_for_docker=True)
        for name, (code, status, why, cpu_s) in _OVERRUNS.items()
    ),
    Entry(
        Category.MACHINE,
        "output_of_1_gb",
        "import os\nfor _ in range(1 << 10): os.write(1, b'x' * (1 << 20))",
        Status.OLE,
        "bytes",
    ),
    Entry(
        Category.MACHINE,
        "errors_of_1_gb",
        "import os\nfor _ in range(1 << 10): os.write(2, b'x' * (1 << 20))\nprint(10)",
    ),
    *(
        Entry(Category.MACHINE, name, code, is_for_docker=True)
        for name, code in (_STOPPED | _WITHIN_LIMITS).items()
    ),
)
