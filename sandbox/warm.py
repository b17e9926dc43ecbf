"""What every judged program finds warm, one half: modules that are imported (`rehearsal.py` is the
other).

Runs inside the sandbox, standard library only. A forked child copies each page that it writes, and
that is most of what a short test costs: what many programs would do first is done once, before the
fork. What is warm and never used has its price too, since a fork copies the page tables of it all.
"""

import os
import sys
from typing import Any

# What programs import most, and the preludes of the benchmarks do. Of 880 recorded programs of
# LiveCodeBench none imports `dataclasses`, which brings a fifth of what would then be warm.
MODULES = (
    *("bisect", "collections", "copy", "datetime", "functools", "heapq", "io", "itertools", "math"),
    *("operator", "random", "re", "string", "time", "typing"),
)


def _import_modules() -> list[dict[str, Any]]:
    """Returns the fork hooks that the modules wished to register. Between gate, stem and child they
    would do nothing but cost half a millisecond: there is one thread, and `random` is to start from
    the same state in every test."""
    hooks: list[dict[str, Any]] = []
    register = os.register_at_fork
    os.register_at_fork = lambda **hook: hooks.append(hook)
    try:
        for module in MODULES:
            __import__(module)
    finally:
        os.register_at_fork = register
    sys.modules["random"].seed(0)
    return hooks


def _before_fork() -> None:
    """The first fork of a judged program registers the hooks, in time for that very fork. Doing
    it in every child would copy thirty pages in each."""
    while _fork_hooks:
        os.register_at_fork(**_fork_hooks.pop(0))


_fork_hooks = _import_modules()
os.register_at_fork(before=_before_fork)
