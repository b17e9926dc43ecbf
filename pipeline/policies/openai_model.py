"""What both ways of asking an OpenAI model share: how a policy is opened, checked, and ended."""

from collections.abc import Sequence

from pipeline.config import OpenAIPolicy
from pipeline.journal import Journal
from pipeline.object_journal import ObjectJournal
from pipeline.policies.budget import Budget
from pipeline.policies.ledger import Ledger
from pipeline.policies.openai_client import Connection
from pipeline.policies.own_loop import OwnLoop
from pipeline.policies.paid_answers import Call, PaidAnswers, calls_of
from pipeline.policies.protocol import PolicyError, PolicyRequest


class OpenAIModel:
    """Base of the policies. The budget is one for all processes that share the journal's directory,
    and holds over reruns. `Prompt.prefill` is ignored."""

    continues_prefill = False

    def __init__(self, config: OpenAIPolicy, journal: Journal | ObjectJournal) -> None:
        self._config = config
        self._answers = PaidAnswers(journal)
        self._connection = Connection(config)
        self._ledger = Ledger(f"{journal.directory}/spending")
        self._budget = Budget(config.budget_usd, self._ledger)
        self._closed = False
        self._loop = OwnLoop("openai")

    @property
    def spent_usd(self) -> float:
        """Dollars spent through this journal."""
        return self._budget.spent_usd()

    def preflight(self) -> None:
        """Ask for the model before anything is spent; the first paid call does so by itself.

        Raises PolicyError that names a missing or bad key, or an unknown or retired model.
        """
        self._loop.submit(self._connection.client()).result()

    def close(self) -> None:
        """Wait for the calls in flight, which are paid, and end. Batches go on at the server."""
        if self._closed:
            return
        self._closed = True
        self._loop.submit(self._end()).result()
        self._loop.stop()
        self._answers.close()

    def _calls(self, requests: Sequence[PolicyRequest]) -> list[Call]:
        if self._closed:
            raise PolicyError("this OpenAI policy is closed")
        return list(calls_of(self._config, requests))

    async def _in_flight_over(self) -> None:
        """Wait until nothing that was sent is without its answer."""

    async def _end(self) -> None:
        await self._in_flight_over()
        await self._budget.close()
        await self._connection.close()
