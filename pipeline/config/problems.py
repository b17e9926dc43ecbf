"""Which problems, and which of them are for what."""

import datetime
import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline.config.section import Section
from pipeline.records import Role
from sandbox.protocol import MAX_CPU_S, Comparator


class ScaleModelProblems(Section):
    """Problems of the small world, made by a generator (DESIGN: the scale model)."""

    kind: Literal["scale_model"] = "scale_model"
    train: PositiveInt = 240
    """Problems to train on; with a third as many, every comparison was noise."""
    meta: PositiveInt = 80
    """Training problems set aside for the label correction."""
    validation: PositiveInt = 100
    """Problems on which settings are chosen."""
    test: PositiveInt = 400
    """Held-out problems."""
    tests_per_problem: PositiveInt = 10
    """Unit tests of each problem."""
    seed: int = 0
    """Seed of the generator."""


class DateWindow(Section):
    """Release dates from `after` (included) up to `before` (excluded)."""

    after: datetime.date | None = None
    """First release date that is taken."""
    before: datetime.date | None = None
    """First release date that is not taken any more."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.after and self.before and self.after >= self.before:
            raise ValueError(f"after ({self.after}) must be earlier than before ({self.before})")
        return self

    def contains(self, day: datetime.date) -> bool:
        return (self.after is None or day >= self.after) and (
            self.before is None or day < self.before
        )


class FileProblems(DateWindow):
    """Problems of a public benchmark, or of your own, read from JSON-lines files; where dates are
    given, only those released in that window."""

    kind: Literal["livecodebench", "leetcode", "humaneval", "jsonl"]
    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    """JSON-lines files, plain or compressed (.gz, .xz, ...), or folders of them: local paths,
    fsspec URIs, or datasets of the Hugging Face hub by name,
    `hf://datasets/OWNER/NAME[@REVISION][/FILE]` (downloaded once to the hub's local cache)."""
    platforms: tuple[str, ...] = ()
    """Take only problems of these platforms; none named: of all."""
    difficulties: tuple[str, ...] = ()
    """Take only problems of these difficulties; none named: of all."""
    time_limit_s: Annotated[float, Field(gt=0, le=MAX_CPU_S, allow_inf_nan=False)] = 6.0
    """CPU seconds of one test where a problem names no limit of its own; LiveCodeBench's."""
    comparator: Comparator = Comparator.LCB
    """How outputs are compared."""
    skip_bad_rows: bool = False
    """Go on without rows that cannot be read; they are counted and the first are named."""
    limit: PositiveInt | None = None
    """Take only the first so many problems, by id, after all filters."""


ProblemsConfig = Annotated[ScaleModelProblems | FileProblems, Field(discriminator="kind")]


class SplitsConfig(Section):
    """The role of a problem is decided by its release date, so that no model was trained on what
    it is tested with. The defaults keep the papers' bounds (train before 2024-08-01, test from
    2025-02-01) and take the meta problems from the end of the training window."""

    train: DateWindow = DateWindow(before=datetime.date(2024, 4, 1))
    meta: DateWindow = DateWindow(after=datetime.date(2024, 4, 1), before=datetime.date(2024, 8, 1))
    validation: DateWindow = DateWindow(
        after=datetime.date(2024, 8, 1), before=datetime.date(2025, 2, 1)
    )
    test: DateWindow = DateWindow(after=datetime.date(2025, 2, 1))

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        windows = sorted(
            (
                (window.after or datetime.date.min, window.before or datetime.date.max, role)
                for role in Role
                for window in [self.window(role)]
            ),
        )
        for (_, end, first), (start, _, second) in itertools.pairwise(windows):
            if start < end:
                raise ValueError(f"the windows of {first} and {second} overlap")
        return self

    def window(self, role: Role) -> DateWindow:
        return getattr(self, role.value)

    def role_of(self, released_on: datetime.date) -> Role | None:
        """The role whose window holds the date; None where no window does."""
        for role in Role:
            if self.window(role).contains(released_on):
                return role
        return None
