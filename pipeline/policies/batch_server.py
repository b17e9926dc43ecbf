"""The server's side of a batch: its lines are uploaded, it is created, looked at, and its results
are fetched.

A batch that may have been created without our hearing of it is looked for by its token before
another is: no request is submitted twice, as long as the server lists the batches that it has
accepted.
"""

import logging

import openai
from openai.types import Batch

from pipeline.config import OpenAIPolicy
from pipeline.policies.batch_results import Blame, Failure, read_results
from pipeline.policies.batch_submissions import Submission, Submissions
from pipeline.policies.openai_client import Connection
from pipeline.policies.openai_wire import Answer
from pipeline.policies.paid_answers import Slot
from pipeline.policies.protocol import PolicyError
from pipeline.policies.retries import MalformedResponse, with_retries

logger = logging.getLogger(__name__)

_CHAT = "/v1/chat/completions"
_CLOCKS_DIFFER_S = 3600.0  # at most, ours and the server's
_TOKEN = "submission"  # the key of our token in a batch's metadata


class BatchServer:
    """Where submissions go. Every step is in their notes before the next. All methods raise what
    the client raises, after retries."""

    def __init__(
        self, config: OpenAIPolicy, connection: Connection, submissions: Submissions
    ) -> None:
        self._config = config
        self._connection = connection
        self._submissions = submissions

    async def look_at(self, submission: Submission) -> Batch:
        """The batch of a submission, created if the server does not have it yet. Raises PolicyError
        where the server has it no more."""
        batch_id = submission.batch_id
        if batch_id is None:  # we were killed, or lost the connection, on the way
            return await self.create(submission, perhaps_there=True)
        client = await self._connection.client()
        try:
            return await with_retries(
                lambda: client.batches.retrieve(batch_id), self._config.max_retries
            )
        except openai.NotFoundError:
            raise self._gone(submission) from None

    async def create(self, submission: Submission, *, perhaps_there: bool = False) -> Batch:
        """Upload what was not, and submit it."""
        client, retries = await self._connection.client(), self._config.max_retries
        if submission.input_file_id is None:
            uploaded = await with_retries(lambda: self._upload(client, submission), retries)
            submission = self._submissions.update(submission, input_file_id=uploaded)
        file_id = submission.input_file_id
        assert file_id is not None

        async def attempt() -> Batch:
            nonlocal perhaps_there
            if perhaps_there and (found := await _find(client, submission)):
                return found
            perhaps_there = True
            return await client.batches.create(
                completion_window="24h",
                endpoint="/v1/responses" if submission.api == "responses" else _CHAT,
                input_file_id=file_id,
                metadata={_TOKEN: submission.token},
            )

        batch = await with_retries(attempt, retries)
        self._submissions.update(submission, batch_id=batch.id)
        logger.info("batch %s: %d requests submitted", batch.id, submission.requests)
        return batch

    async def results(self, submission: Submission, batch: Batch) -> dict[Slot, Answer | Failure]:
        """What became of the requests of a batch that has ended. Where its results are damaged
        however often they are fetched, what can be read counts, and the rest as billed. Raises
        PolicyError where the server has it no more."""
        client = await self._connection.client()
        results: dict[Slot, Answer | Failure] = {}

        async def read(file_id: str) -> None:
            content = await client.files.content(file_id)
            read, damage = read_results(self._config, content.text.split("\n"))
            results.update(read)
            if damage is not None:
                raise MalformedResponse(damage)

        unread: Failure | None = None
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            try:
                await with_retries(lambda file_id=file_id: read(file_id), self._config.max_retries)
            except openai.NotFoundError:
                raise self._gone(submission) from None
            except MalformedResponse as damage:
                logger.warning("batch %s: %s; the other lines are kept", batch.id, damage)
                unread = Failure(str(damage), Blame.BILLED)
        if unread is not None:
            for slot in self._submissions.slots(submission) - results.keys():
                results[slot] = unread
        return results

    async def _upload(self, client: openai.AsyncOpenAI, submission: Submission) -> str:
        path = self._submissions.lines(submission)
        with path.open("rb") as file:
            return (await client.files.create(file=(path.name, file), purpose="batch")).id

    def _gone(self, submission: Submission) -> PolicyError:
        return PolicyError(
            f"Batch API: the server has no batch {submission.batch_id} any more, or not its "
            "results: they were deleted, or OPENAI_API_KEY is of another project; where they are "
            f"lost, delete {self._submissions.note(submission)} and run again, which pays for its "
            f"{submission.requests} requests anew"
        )


async def _find(client: openai.AsyncOpenAI, submission: Submission) -> Batch | None:
    """The batch that carries our token, if the server has it; it lists the newest first."""
    async for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get(_TOKEN) == submission.token:
            return batch
        if batch.created_at < submission.created - _CLOCKS_DIFFER_S:
            return None
    return None
