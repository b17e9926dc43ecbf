"""Files of problems to problems: bad rows, duplicates and what filters leave out are all said."""

import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from pipeline.bad_rows import LISTED, BadRow, count_rows, field_and_reason, listing
from pipeline.config import FileProblems
from pipeline.problems.rows import Defaults, FieldError, ProblemRow
from pipeline.problems.sources import problem_files
from pipeline.records import Problem
from pipeline.row_files import lines

SEE_ALL = "`python -m jobs.problems FILE --json` lists all"


class BadRows(ValueError):
    """Rows that are no problems; `rows` lists all of them."""

    def __init__(self, rows: Sequence[BadRow]) -> None:
        self.rows = tuple(rows)
        super().__init__(
            f"{_listing(self.rows)}\nmend them, or leave them out: --skip-bad-rows where files are "
            "named on the command line, --problems.skip_bad_rows true (or problems.skip_bad_rows: "
            "true in the file) where a config names them"
        )


def _listing(rows: Sequence[BadRow]) -> str:
    return listing(rows, "problems", SEE_ALL)


class NoProblems(ValueError):
    """There is nothing to work on."""


@dataclass(frozen=True, slots=True)
class Read:
    """A problem, its canonical program, and where both were read."""

    problem: Problem
    canonical: str | None
    place: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row that was left out because `kept` is the same problem: text, entry point and tests."""

    problem_id: str
    place: str
    kept: str
    kept_place: str

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.problem_id} is the same problem as {self.kept} in "
            f"{self.kept_place}"
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What files of problems hold: `read` by id, the rest is what was left out and why.

    `filtered` counts the problems that the filters of the config left out.
    """

    read: tuple[Read, ...]
    bad: tuple[BadRow, ...]
    duplicates: tuple[Duplicate, ...]
    filtered: int

    @property
    def problems(self) -> list[Problem]:
        return [read.problem for read in self.read]

    @property
    def bad_rows(self) -> int:
        """A row with two bad fields is one."""
        return count_rows(self.bad)

    def left_out(self) -> list[str]:
        """What was left out for a fault of the data, to be told."""
        notes = [f"left out: {_listing(self.bad)}"] if self.bad else []
        notes += [f"left out: {duplicate}" for duplicate in self.duplicates[:LISTED]]
        if len(self.duplicates) > LISTED:
            more = len(self.duplicates) - LISTED
            notes.append(f"left out: {more:,} more duplicates; {SEE_ALL}")
        return notes


def read_problems(config: FileProblems, form: type[ProblemRow]) -> Reading:
    """The problems of all files, by id, of which the first `config.limit`.

    Raises BadRows (with `skip_bad_rows` they are left out and listed), NoProblems, also where a
    filter names a word that no problem has, and OSError for a file that cannot be read.
    """
    defaults = Defaults(config.time_limit_s, config.comparator)
    kept = _Kept()
    bad: list[BadRow] = []
    filters = _Filters(config)
    for path, number, line in lines(problem_files(config.paths)):
        place = f"{path}, row {number}"
        try:
            row = form.model_validate_json(line)
            problem = row.problem(defaults)
            if form.has_tests and not problem.tests:
                raise FieldError("tests", "a problem needs at least one test")
            if filters.take(problem):
                kept.add(Read(problem, row.canonical_program(), place))
        except ValidationError as error:
            bad.extend(BadRow(path, number, *field_and_reason(each)) for each in error.errors())
        except FieldError as error:
            bad.append(BadRow(path, number, error.field, error.reason))
    if bad and not config.skip_bad_rows:
        raise BadRows(bad)
    filters.check()
    if not kept.by_id:
        files = ", ".join(config.paths)
        raise NoProblems(
            f"no problem in {files}: "
            + (
                f"the filters leave out all {filters.left_out}; {filters.seen()}"
                if filters.left_out
                else "give files with at least one"
            )
        )
    read = [kept.by_id[problem_id] for problem_id in sorted(kept.by_id)][: config.limit]
    return Reading(tuple(read), tuple(bad), tuple(kept.duplicates), filters.left_out)


class _Kept:
    """Problems by id, no two of them the same."""

    def __init__(self) -> None:
        self.by_id: dict[str, Read] = {}
        self.duplicates: list[Duplicate] = []
        self._by_statement: defaultdict[str, list[Read]] = defaultdict(list)

    def add(self, read: Read) -> None:
        """Raises FieldError for another problem of the same id."""
        problem = read.problem
        for other in self._by_statement[problem.statement]:
            if _content(other.problem) == _content(problem):
                self.duplicates.append(
                    Duplicate(problem.problem_id, read.place, other.problem.problem_id, other.place)
                )
                return
        if first := self.by_id.get(problem.problem_id):
            raise FieldError(
                "id", f"{problem.problem_id!r} is another problem than that in {first.place}"
            )
        self.by_id[problem.problem_id] = read
        self._by_statement[problem.statement].append(read)


def _content(problem: Problem) -> tuple[object, ...]:
    return problem.entry_point, problem.starter_code, problem.prelude, problem.tests


class _Filters:
    """Which problems the config takes, and what those had that it was asked about."""

    def __init__(self, config: FileProblems) -> None:
        self.left_out = 0
        self._config = config
        self._platforms: set[str] = set()
        self._difficulties: set[str] = set()
        self._dates: list[datetime.date] = []

    def take(self, problem: Problem) -> bool:
        config = self._config
        self._platforms.add(problem.platform)
        self._difficulties.add(problem.difficulty)
        self._dates.append(problem.released_on)
        taken = (
            config.contains(problem.released_on)
            and (not config.platforms or problem.platform in config.platforms)
            and (not config.difficulties or problem.difficulty in config.difficulties)
        )
        self.left_out += not taken
        return taken

    def check(self) -> None:
        """Raises NoProblems for a word that no problem of the files has."""
        for option, wanted, there in (
            ("platforms", self._config.platforms, self._platforms),
            ("difficulties", self._config.difficulties, self._difficulties),
        ):
            for word in wanted:
                if there and word not in there:
                    raise NoProblems(
                        f"problems.{option}: no problem has {word!r}; there are "
                        f"{', '.join(sorted(there))}"
                    )

    def seen(self) -> str:
        return f"released {min(self._dates)} to {max(self._dates)}"
