"""How the runner gets into an interpreter: its source is the first thing sent over the pipe.

So a changed runner needs no new image, and a container needs no writable file system. The modules
take their usual names while they load, then leave `sys.modules`: to a judged program there is no
`sandbox` to import.
"""

import json
import struct
from functools import cache
from pathlib import Path

# In order of import: what the gate is forked with, and what the runner then needs beyond.
_FORKED = (
    *("nodes", "values", "warm", "linux", "child", "rehearsal", "syscalls", "confine"),
    *("hugepages", "sweep", "orders", "compiler", "gate"),
)
_RUNNERS = ("frames", "meter", "watch", "runner")

# To compile leaves a heap full of holes, whose pages every later fork would copy: so a process that
# is forked for it compiles, and hands over code objects.
_LOADER = """
import sys
sys.path[:] = filter(None, sys.path)
import marshal, os, types
os.environ.pop("LD_BIND_NOW", None)
def receive(descriptor, count):
    chunks = []
    while count:
        chunk = os.read(descriptor, min(count, 1 << 16))
        if not chunk:
            os._exit(0)
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)
def receive_cargo(descriptor):
    return receive(descriptor, int.from_bytes(receive(descriptor, 4), "big"))
def load(modules):
    loaded = {}
    for name, code in modules.items():
        name = "sandbox." + name
        module = sys.modules[name] = loaded[name] = types.ModuleType(name)
        exec(code, module.__dict__)
    return loaded
compiled, compiler = os.pipe()
pid = os.fork()
if pid == 0:
    import json
    cargo = json.loads(receive_cargo(0))
    for modules in (cargo["forked"], cargo["runners"]):
        for name, source in modules.items():
            modules[name] = compile(source, "sandbox." + name, "exec", optimize=2)
    for part in (cargo["forked"], cargo["options"], cargo["runners"]):
        body = marshal.dumps(part)
        body = memoryview(len(body).to_bytes(4, "big") + body)
        while body:
            body = body[os.write(compiler, body) :]
    os._exit(0)
os.close(compiler)
sys.modules["sandbox"] = package = types.ModuleType("sandbox")
forked = load(marshal.loads(receive_cargo(compiled)))
options = marshal.loads(receive_cargo(compiled))
for name in ("sandbox", *forked):
    del sys.modules[name]
uids = forked["sandbox.confine"].confine(**options)
forked["sandbox.hugepages"].move_code()
orders, compiler = forked["sandbox.gate"].open_gate(options["box"], uids)
sys.modules.update(forked, sandbox=package)
runners = load(marshal.loads(receive_cargo(compiled)))
os.close(compiled)
os.waitpid(pid, 0)
runners["sandbox.runner"].serve(orders, compiler, options["box"], uids)
"""

# -s: no user's packages on the path (nor, see above, the current directory); -B: no .pyc files.
FLAGS = ("-s", "-B", "-X", "utf8", "-c", _LOADER)

# A fixed hash seed: a program that prints a set in its own order gets the same verdict every time.
# One BLAS thread: more would only fight for one CPU, and each takes address space.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": ".",  # a test starts in its own directory, the only one that it may write to
    "TMPDIR": ".",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Each arena reserves 64 MB of address space, and every thread would have one.
    "MALLOC_ARENA_MAX": "1",
    # Else every child would look up again what its interpreter calls first in a child.
    "LD_BIND_NOW": "1",
}


def cargo(box: str, *, own_uids: bool) -> bytes:
    """The first bytes to send: the runner and its options.

    `box` is the directory in which each test gets its own; `own_uids` asks for a fresh uid per
    test, which takes root with SETUID, SETGID and CHOWN.
    """
    sources = {"forked": _sources(_FORKED), "runners": _sources(_RUNNERS)}
    body = json.dumps(sources | {"options": {"box": box, "own_uids": own_uids}})
    return struct.pack(">I", len(body)) + body.encode()  # json.dumps writes ASCII


@cache
def _sources(names: tuple[str, ...]) -> dict[str, str]:
    here = Path(__file__).parent
    return {name: (here / f"{name}.py").read_text("utf-8") for name in names}
