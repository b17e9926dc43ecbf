"""How the runner gets into an interpreter: its source is the first thing sent over the pipe.

So a changed runner needs no new image, and a container needs no writable file system. The modules
take their usual names while they load, then leave `sys.modules`: to a judged program there is no
`sandbox` to import.
"""

import json
import struct
from functools import cache
from pathlib import Path

# In order of import.
_SHIPPED = (
    *("frames", "nodes", "values", "warm", "child", "rehearsal", "meter", "syscalls", "sweep"),
    *("gate", "watch", "runner"),
)

# To compile leaves a heap full of holes, whose pages every later fork would copy: so a process that
# is forked for it compiles, and hands over code objects.
_LOADER = """
import sys
sys.path[:] = filter(None, sys.path)
import marshal, os, types
def receive(descriptor, count):
    chunks = []
    while count:
        chunk = os.read(descriptor, min(count, 1 << 16))
        if not chunk:
            os._exit(0)
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)
compiled, compiler = os.pipe()
if os.fork() == 0:
    import json
    cargo = json.loads(receive(0, int.from_bytes(receive(0, 4), "big")))
    for name, source in cargo["modules"].items():
        cargo["modules"][name] = compile(source, "sandbox." + name, "exec", optimize=2)
    body = memoryview(marshal.dumps(cargo))
    body = memoryview(len(body).to_bytes(4, "big") + body)
    while body:
        body = body[os.write(compiler, body) :]
    os._exit(0)
os.close(compiler)
cargo = marshal.loads(receive(compiled, int.from_bytes(receive(compiled, 4), "big")))
os.close(compiled)
os.wait()
sys.modules["sandbox"] = types.ModuleType("sandbox")
for name, code in cargo["modules"].items():
    name = "sandbox." + name
    module = sys.modules[name] = types.ModuleType(name)
    exec(code, module.__dict__)
for name in [name for name in sys.modules if name.partition(".")[0] == "sandbox"]:
    del sys.modules[name]
options = cargo["options"]
del cargo, code
module.serve(**options)
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
}


def cargo(box: str, *, own_uids: bool) -> bytes:
    """The first bytes to send: the runner and its options.

    `box` is the directory in which each test gets its own; `own_uids` asks for a fresh uid per
    test, which takes root with SETUID, SETGID and CHOWN.
    """
    body = json.dumps({"modules": _sources(), "options": {"box": box, "own_uids": own_uids}})
    return struct.pack(">I", len(body)) + body.encode()  # json.dumps writes ASCII


@cache
def _sources() -> dict[str, str]:
    here = Path(__file__).parent
    return {name: (here / f"{name}.py").read_text("utf-8") for name in _SHIPPED}
