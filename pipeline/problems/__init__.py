"""Problems of public benchmarks, and of your own: one loader per form, all to `Problem`."""

from importlib import import_module

from pipeline.config import FileProblems
from pipeline.problems.rows import BadRows, NoProblems, Read, read_problems
from pipeline.records import Problem

__all__ = ["BadRows", "NoProblems", "load_canonical_programs", "load_problems"]


def load_problems(config: FileProblems) -> list[Problem]:
    """The problems of `config.paths`, sorted by id, the first `config.limit` of them.

    Raises BadRows, listing every row that cannot be read by file, row and field; NoProblems; and
    OSError for a file that cannot be read.
    """
    return [read.problem for read in _read(config)]


def load_canonical_programs(config: FileProblems) -> dict[str, str]:
    """The benchmark's own right programs, by problem id; empty for a form that carries none.

    Raises what `load_problems` raises.
    """
    return {read.problem.problem_id: read.canonical for read in _read(config) if read.canonical}


def _read(config: FileProblems) -> list[Read]:
    form = import_module(f"pipeline.problems.{config.kind}").Row
    return read_problems(config, form)
