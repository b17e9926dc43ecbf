"""Recorded candidates as a policy: LiveCodeBench's `eval_all` form.

The answers are replayed, and the run takes a program from each as from any policy's. The record's
own `code_list`, which jobs.evaluate grades, may differ: of o1-mini's 880 answers, in 2.
"""

from collections.abc import AsyncIterator, Sequence

from pipeline.config import ReplayPolicy
from pipeline.eval_all import EvalAllError, read_eval_all
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
        try:
            rows = read_eval_all(config.path)
        except EvalAllError as error:
            raise PolicyError(str(error)) from error
        self._answers = {row.question_id: tuple(row.output_list) for row in rows}

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
