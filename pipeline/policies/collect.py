"""All answers to a set of requests, in a fixed order."""

import dataclasses
from collections.abc import Sequence

from pipeline.policies.protocol import Policy, PolicyError, PolicyRequest, PolicyResponse


async def collect(policy: Policy, requests: Sequence[PolicyRequest]) -> list[PolicyResponse]:
    """Every answer asked for, in the order of the requests and their sample indices, whatever order
    they finish in. Half a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD.

    Raises PolicyError where the policy leaves one out, repeats one or gives an unasked one.
    """
    asked = {(request.key, index) for request in requests for index in request.sample_indices}
    answers: dict[tuple[str, int], PolicyResponse] = {}
    async for response in policy.complete(requests):
        answer = (response.key, response.sample_index)
        if answer in answers or answer not in asked:
            told = "twice" if answer in answers else "unasked"
            raise PolicyError(
                f"the policy answered {told}: request {answer[0]}, sample {answer[1]}"
            )
        answers[answer] = dataclasses.replace(response, text=_storable(response.text))
    if missing := asked - answers.keys():
        key, index = min(missing)
        raise PolicyError(
            f"the policy left out {len(missing)} of {len(asked)} answers, "
            f"the first: request {key}, sample {index}"
        )
    return [answers[request.key, index] for request in requests for index in request.sample_indices]


def _storable(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
