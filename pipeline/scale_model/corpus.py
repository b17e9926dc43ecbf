"""What the small policy learns from: programs for the training problems' world, bugs included.

Every function of a program is wrong with a probability of its own (`Operation.bug_rate` for a
helper, `MAIN_BUG_RATE` for `main()`), so a policy that has learned the corpus samples right and
wrong functions alike, and best-of-N has something to win.

The corpus holds operation sequences of the train and meta windows only: a validation or test
problem asks the policy for a sequence that it never saw, not only for new numbers or words. It is
drawn from those sequences at large, not from the problems that the pipeline samples.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config import SplitsConfig
from pipeline.records import Role, content_hash
from pipeline.scale_model.generator import draw_specs
from pipeline.scale_model.operations import Kind
from pipeline.scale_model.spec import Spec, write_program, write_statement

MAIN_BUG_RATE = 0.12
ROLES = frozenset({Role.TRAIN, Role.META})


@dataclass(frozen=True, slots=True)
class CorpusProgram:
    """A statement, an answer to it, and the names of the answer's wrong functions."""

    statement: str
    code: str
    wrong: tuple[str, ...]


def draw_corpus(
    count: int, seed: int, problems_seed: int, splits: SplitsConfig
) -> Iterator[CorpusProgram]:
    """`count` programs. `problems_seed` is the seed of the problems, which fixes the dates."""
    rng = random.Random(content_hash("corpus", seed))
    specs = draw_specs(ROLES, rng, problems_seed, splits)
    for _, spec in zip(range(count), specs, strict=False):
        yield _draw_program(spec, rng)


def _draw_program(spec: Spec, rng: random.Random) -> CorpusProgram:
    statement = write_statement(spec, rng)
    order = [call.operation.kind for call in spec.calls]
    wrong: list[str] = []
    if rng.random() < MAIN_BUG_RATE:
        wrong.append("main")
        order = _break_order(order, rng)
    calls = {call.operation.kind: call for call in spec.calls}
    helpers: dict[Kind, str] = {}
    for kind in order:
        call = calls[kind]
        helpers[kind] = call.expression
        if rng.random() < call.operation.bug_rate:
            wrong.append(str(kind))
            helpers[kind] = rng.choice(call.bugs)
    return CorpusProgram(statement, write_program(order, helpers), tuple(wrong))


def _break_order(order: list[Kind], rng: random.Random) -> list[Kind]:
    """The plan with two neighbouring calls swapped or one dropped; the fold stays last."""
    steps = order[:-1]
    index = rng.randrange(len(steps))
    if index and rng.random() < 0.5:
        steps[index - 1 : index + 1] = steps[index], steps[index - 1]
    else:
        del steps[index]
    return [*steps, order[-1]]
