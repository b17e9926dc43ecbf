"""The program that asks a sandbox what it runs programs on: its Python, and the libraries of the
image that a program may import. An image is rebuilt to the same name, and a rebuilt one of the same
content has another id; what decides verdicts is this."""

from sandbox.protocol import Program, TestCase

ASK = Program(
    """
import platform
from importlib import metadata
print(platform.python_implementation(), platform.python_version(), end="")
for library in ("numpy", "sortedcontainers"):
    try:
        print(",", library, metadata.version(library), end="")
    except metadata.PackageNotFoundError:
        pass
""",
    (TestCase(stdin="", expected=""),),
)
