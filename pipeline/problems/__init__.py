"""Problems of public benchmarks, and of your own: one loader per form, all to `Problem`."""

import logging

from pipeline.config import FileProblems
from pipeline.problems.forms import UnknownForm, row_form
from pipeline.problems.reading import BadRows, NoProblems, Reading, read_problems
from pipeline.records import Problem

_log = logging.getLogger(__name__)

__all__ = [
    "BadRows",
    "NoProblems",
    "UnknownForm",
    "load_canonical_programs",
    "load_problems",
    "read_files",
]


def read_files(config: FileProblems) -> Reading:
    """The problems of `config.paths` that its filters take, and what was left out.

    Raises BadRows, listing every row that cannot be read by file, row and field; NoProblems; and
    OSError for a file that cannot be read.
    """
    return read_problems(config, row_form(config.kind))


def load_problems(config: FileProblems) -> list[Problem]:
    """The problems of `config.paths`, sorted by id; what was left out is logged.

    Raises what `read_files` raises.
    """
    reading = read_files(config)
    for note in reading.left_out():
        _log.warning(note)
    return reading.problems


def load_canonical_programs(config: FileProblems) -> dict[str, str]:
    """The benchmark's own right programs, by problem id; empty for a form that carries none.

    Raises what `read_files` raises.
    """
    return {
        read.problem.problem_id: read.canonical
        for read in read_files(config).read
        if read.canonical
    }
