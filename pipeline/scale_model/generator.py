"""Problems of the small world: statements, dates and tests, all made by rule.

Problems are held out by *operation sequence*: a sequence of operations (whatever its parameters and
phrasing) has one release date, a hash of it, so the date windows of `SplitsConfig` put all of its
problems in one role, and no statement of one role is a rewording of a statement of another.
"""

import datetime
import random
from collections.abc import Iterator, Set

from pipeline.config import DateWindow, ScaleModelProblems, SplitsConfig
from pipeline.records import Problem, Role, content_hash
from pipeline.scale_model.operations import Numbers
from pipeline.scale_model.spec import Spec, draw_spec, run, write_statement
from sandbox.protocol import Comparator, TestCase

SOURCE = "scale_model"
TIME_LIMIT_S = 2.0
"""CPU limit of one test: its programs need milliseconds."""
SHARES = {Role.TRAIN: 0.45, Role.META: 0.15, Role.VALIDATION: 0.15, Role.TEST: 0.25}
"""The part of all operation sequences that each role's window gets."""
OPEN_WINDOW = datetime.timedelta(days=365)
"""How much of a window without a beginning or an end is used."""
MAX_MISSES = 5_000
"""Draws in a row without a new problem, after which a window counts as exhausted."""
TEST_ATTEMPTS = 5
"""Sets of tests that are tried before a spec is given up."""


def generate_problems(config: ScaleModelProblems, splits: SplitsConfig) -> list[Problem]:
    """The problems of every role, sorted by id, a function of the arguments alone.

    The problems of a role do not depend on how many another role has, and more problems of a role
    begin with the same ones. Raises ValueError naming the role whose window cannot be filled.
    """
    wanted = {role: getattr(config, role.value) for role in Role}
    problems = [
        problem
        for role, count in wanted.items()
        for problem in _problems_of_role(role, count, config, splits)
    ]
    return sorted(problems, key=lambda problem: problem.problem_id)


def draw_specs(
    roles: Set[Role], rng: random.Random, seed: int, splits: SplitsConfig
) -> Iterator[Spec]:
    """Endless specs whose operation sequences were released in the windows of these roles."""
    while True:
        spec = draw_spec(rng)
        if splits.role_of(release_date(spec.sequence, seed, splits)) in roles:
            yield spec


def release_date(sequence: str, seed: int, splits: SplitsConfig) -> datetime.date:
    """The one day on which an operation sequence was released: its hash decides the role, with
    the odds of `SHARES`, and the day in that role's window."""
    rng = random.Random(content_hash("release", seed, sequence))
    (role,) = rng.choices(tuple(SHARES), tuple(SHARES.values()))
    start, days = _days(splits.window(role))
    return start + datetime.timedelta(days=rng.randrange(days))


def _days(window: DateWindow) -> tuple[datetime.date, int]:
    """The first day of a window and the number of its days."""
    if window.after is None and window.before is None:
        raise ValueError("splits: a window needs `after` or `before`")
    start, end = window.after, window.before
    if start is None:
        assert end is not None
        start = end - OPEN_WINDOW
    return start, ((end or start + OPEN_WINDOW) - start).days


def _problems_of_role(
    role: Role, count: int, config: ScaleModelProblems, splits: SplitsConfig
) -> list[Problem]:
    rng = random.Random(content_hash("problems", config.seed, role))
    problems: dict[tuple, Problem] = {}
    misses = 0
    for spec in draw_specs({role}, rng, config.seed, splits):
        if len(problems) == count:
            break
        statement = write_statement(spec, rng)
        tests = None if spec.calls in problems else draw_tests(spec, rng, config.tests_per_problem)
        if tests is None:
            misses += 1
            if misses == MAX_MISSES:
                raise ValueError(
                    f"problems.{role}: {count} problems were asked for, but the window "
                    f"splits.{role} gave no more than {len(problems)} with "
                    f"{config.tests_per_problem} tests that notice every bug: ask for fewer "
                    "problems or for more tests_per_problem"
                )
            continue
        misses = 0
        problems[spec.calls] = _problem(spec, statement, tests, config.seed, splits)
    return list(problems.values())


def _problem(
    spec: Spec, statement: str, tests: tuple[TestCase, ...], seed: int, splits: SplitsConfig
) -> Problem:
    return Problem(
        problem_id=content_hash(SOURCE, statement, *tests),
        source=SOURCE,
        platform=SOURCE,
        title=spec.sequence,
        statement=statement,
        starter_code="",
        entry_point=None,
        difficulty=f"{len(spec.calls) + 1} functions",
        released_on=release_date(spec.sequence, seed, splits),
        tests=tests,
        comparator=Comparator.STRICT,
        time_limit_s=TIME_LIMIT_S,
    )


def draw_tests(spec: Spec, rng: random.Random, count: int) -> tuple[TestCase, ...] | None:
    """Tests that together notice every bug of the catalogue and every dropped call; None where no
    such tests were found, as for a spec in which one operation undoes another (sort, then sum)."""
    for _ in range(TEST_ATTEMPTS):
        inputs = [_draw_numbers(spec, rng) for _ in range(count)]
        expected = [spec.run(numbers) for numbers in inputs]
        if all(
            [run(wrong, numbers) for numbers in inputs] != expected
            for wrong in _wrong_versions(spec)
        ):
            return tuple(
                TestCase(stdin=" ".join(map(str, numbers)) + "\n", expected=f"{right}\n")
                for numbers, right in zip(inputs, expected, strict=True)
            )
    return None


def _wrong_versions(spec: Spec) -> Iterator[list[str]]:
    """The spec's expressions with one call broken or, but for the fold, left out."""
    right = [call.expression for call in spec.calls]
    for index, call in enumerate(spec.calls):
        for bug in call.bugs:
            yield [*right[:index], bug, *right[index + 1 :]]
        if index + 1 < len(right):
            yield right[:index] + right[index + 1 :]


def _draw_numbers(spec: Spec, rng: random.Random) -> Numbers:
    """A list that often meets the boundaries of the spec's conditions."""
    near = [call.parameter + d for call in spec.calls if call.parameter for d in (-1, 0, 1)]
    return [
        rng.choice(near) if near and rng.random() < 0.3 else rng.randint(-9, 20)
        for _ in range(rng.randint(3, 12))
    ]
