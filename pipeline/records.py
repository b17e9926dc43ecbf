"""The vocabulary of the pipeline: one frozen record per hop, from a problem to a chosen program.

    Problem -> Solution -> Step -> Completion -> Rollout -> StepLabel -> Example -> ScoredSolution

Records hold counts, ids and versions; ratios are derived where they are read. Ids are content
hashes, so that a rerun meets its own work again. `schemas.py` holds the Arrow schema of each.
"""

import datetime
import hashlib
from dataclasses import dataclass
from enum import StrEnum

from sandbox.protocol import Comparator, Status, TestCase, Verdict


def content_hash(*parts: object) -> str:
    """16 hex digits that identify `parts`; their boundaries count."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        encoded = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


class Role(StrEnum):
    """What a problem is used for; no problem has two roles."""

    TRAIN = "train"
    META = "meta"  # training problems whose clean final labels steer the label correction
    VALIDATION = "validation"  # settings are chosen here
    TEST = "test"


class FinishReason(StrEnum):
    """Why a policy stopped."""

    STOP = "stop"
    LENGTH = "length"  # cut at the token limit
    REFUSED = "refused"
    FILTERED = "filtered"


@dataclass(frozen=True, slots=True)
class Problem:
    """A programming task and its tests."""

    problem_id: str
    source: str
    platform: str
    title: str
    statement: str
    starter_code: str
    entry_point: str | None  # None: reads stdin, writes stdout
    difficulty: str
    released_on: datetime.date
    tests: tuple[TestCase, ...]
    comparator: Comparator
    time_limit_s: float
    prelude: str = ""  # imports and classes that its programs assume: executed is prelude + code


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """Everything about a policy that shapes its answers."""

    model: str
    parameters: str  # canonical JSON of the sampling parameters
    prompt_version: str


@dataclass(frozen=True, slots=True)
class Solution:
    """One answer of a policy to a problem. `code` is empty where the text holds no program."""

    solution_id: str
    problem_id: str
    policy: PolicyVersion
    sample_index: int
    text: str
    code: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class ProgramVerdict:
    """The verdict on one program; `program_id` is a solution's id, or the caller's own."""

    program_id: str
    problem_id: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """One function of a program; `start` and `end` are byte offsets in its UTF-8 form.

    The prefix of a step is `code[:end]`, verbatim.
    """

    step_id: str
    solution_id: str
    step_index: int
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy answered when asked to finish the program from a step's prefix on."""

    step_id: str
    rollout_index: int
    problem_id: str
    policy: PolicyVersion
    completion: str
    code: str  # the whole program: prefix + completion; empty where the completion was rejected
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """A completion that was executed. `status` None: rejected before execution (no code, or the
    prefix was rewritten, so its outcome would be about another prefix)."""

    step_id: str
    rollout_index: int
    completion: str
    code: str
    finish_reason: FinishReason
    tokens: int
    status: Status | None


@dataclass(frozen=True, slots=True)
class StepLabel:
    """MC evidence about one prefix. Infrastructure failures and rejects are in neither count."""

    step_id: str
    passed: int
    trials: int


@dataclass(frozen=True, slots=True)
class StepTruth:
    """Whether a prefix is really right: known where reference functions exist (scale model)."""

    step_id: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One row per solution: what a PRM is trained on and what it scores.

    The per-step tuples have one entry per function step (none where the solution has no code).
    Rollout counts are of Monte-Carlo rollouts alone; the last step needs none, because its label is
    `final_label`, the clean unit-test outcome. `step_truth` is None where truth is not known.
    """

    solution_id: str
    problem_id: str
    role: Role
    difficulty: str
    problem: str  # the statement, with the starter code where there is one
    code: str
    step_ends: tuple[int, ...]
    step_ids: tuple[str, ...]
    passed: tuple[int, ...]
    trials: tuple[int, ...]
    step_truth: tuple[bool, ...] | None
    final_label: bool


@dataclass(frozen=True, slots=True)
class LabelEstimate:
    """A step label before and after correction, both in [0, 1], and how much it counts in the
    training loss (in [0, 2]; 1 unless weights are what is learned)."""

    step_id: str
    initial: float
    corrected: float
    updates: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ScoredSolution:
    """PRM scores in (0, 1), one per function step of a solution."""

    solution_id: str
    step_scores: tuple[float, ...]
