"""Recorded candidates as a policy: LiveCodeBench's `eval_all` form.

A file is JSON lines, or one JSON list, plain or compressed with gzip. Each row has `question_id`
and `output_list`, the answers of a model in the order in which they were sampled.
"""

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import ReplayPolicy
from pipeline.policies.protocol import PolicyError, PolicyRequest, PolicyResponse
from pipeline.records import FinishReason


class Replay:
    """Answers a request whose key is a problem's id with what was recorded for it.

    Token counts are 0: the form does not hold them.
    """

    continues_prefill = False

    def __init__(self, config: ReplayPolicy) -> None:
        """Raises PolicyError for a file that is not there or is of another form."""
        self._path = config.path
        self._answers = _read(Path(config.path))

    async def complete(self, requests: Sequence[PolicyRequest]) -> AsyncIterator[PolicyResponse]:
        """Every answer, in order. Raises PolicyError for one that was not recorded."""
        for request in requests:
            recorded = self._answers.get(request.key)
            if recorded is None:
                raise PolicyError(
                    f"{self._path} has no candidates for problem {request.key!r} (it has them for "
                    f"{len(self._answers)} problems): sample only the problems that it covers"
                )
            for index in request.sample_indices:
                if index >= len(recorded):
                    raise PolicyError(
                        f"{self._path} has {len(recorded)} candidates for problem {request.key!r}, "
                        f"and sample {index} was asked for: set sampling.samples to "
                        f"{len(recorded)} or less"
                    )
                text = recorded[index]
                yield PolicyResponse(request.key, index, text, FinishReason.STOP, 0, 0)

    def close(self) -> None:
        """Nothing is open."""


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PolicyError(f"recorded candidates cannot be read from {path}: {error}") from error
    answers: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(_rows(path, text), start=1):
        problem, outputs = _candidates(path, number, row)
        if problem in answers:
            raise PolicyError(f"{path}, row {number}: question_id {problem!r} came before")
        answers[problem] = outputs
    return answers


def _rows(path: Path, text: str) -> list[Any]:
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise PolicyError(f"{path} is neither JSON lines nor a JSON list: {error}") from error


def _candidates(path: Path, number: int, row: Any) -> tuple[str, tuple[str, ...]]:
    problem = row.get("question_id") if isinstance(row, dict) else None
    outputs = row.get("output_list") if isinstance(row, dict) else None
    if not isinstance(problem, str):
        raise PolicyError(f"{path}, row {number}: question_id must be a text, got {problem!r}")
    if not isinstance(outputs, list) or not all(isinstance(text, str) for text in outputs):
        raise PolicyError(f"{path}, row {number}: output_list must be a list of texts")
    return problem, tuple(outputs)
