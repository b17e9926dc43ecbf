"""What models behind the OpenAI API cost, and how a bill follows from the tokens used.

Source of the table: OpenAI's published prices (platform.openai.com/docs/pricing), standard tier,
dollars per million tokens, as read on `AS_OF`. Prices change: `policy.price` overrides the table,
and a model that is not in it asks for its price instead of running at a guess.
"""

import datetime
import re
from typing import Annotated

from pydantic import Field, NonNegativeFloat

from pipeline.config.section import Section

AS_OF = datetime.date(2025, 8, 7)

_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class Price(Section):
    """Dollars per million tokens, as read on `as_of`."""

    input: NonNegativeFloat
    cached_input: NonNegativeFloat | None = None
    """Prompt tokens that the server had cached; None: no discount."""
    output: NonNegativeFloat
    """Reasoning tokens included."""
    batch: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of these prices that the Batch API asks."""
    as_of: datetime.date

    def cost_usd(
        self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, *, batch: bool = False
    ) -> float:
        """Dollars of one answer. `prompt_tokens` includes `cached_tokens`, and `completion_tokens`
        the reasoning."""
        cached = self.input if self.cached_input is None else self.cached_input
        micro_usd = (
            (prompt_tokens - cached_tokens) * self.input
            + cached_tokens * cached
            + completion_tokens * self.output
        )
        return micro_usd / 1e6 * (self.batch if batch else 1.0)


def _price(model_input: float, cached_input: float, output: float) -> Price:
    return Price(input=model_input, cached_input=cached_input, output=output, as_of=AS_OF)


PRICES = {
    "o4-mini": _price(1.10, 0.275, 4.40),
    "o3": _price(2.00, 0.50, 8.00),
    "o3-mini": _price(1.10, 0.55, 4.40),
    "o1": _price(15.00, 7.50, 60.00),
    "gpt-5": _price(1.25, 0.125, 10.00),
    "gpt-5-mini": _price(0.25, 0.025, 2.00),
    "gpt-5-nano": _price(0.05, 0.005, 0.40),
    "gpt-4.1": _price(2.00, 0.50, 8.00),
    "gpt-4.1-mini": _price(0.40, 0.10, 1.60),
    "gpt-4.1-nano": _price(0.10, 0.025, 0.40),
    "gpt-4o": _price(2.50, 1.25, 10.00),
    "gpt-4o-mini": _price(0.15, 0.075, 0.60),
}


def price_of(model: str) -> Price:
    """The price of a model, or of the model that a dated name is a snapshot of.

    Raises ValueError that asks for the price of a model that is not in the table.
    """
    price = PRICES.get(model) or PRICES.get(_SNAPSHOT.sub("", model))
    if price is None:
        raise ValueError(
            f"no price is known for the model {model!r} (known: {', '.join(PRICES)}): give "
            "price.input, price.output (dollars per million tokens) and price.as_of (YYYY-MM-DD); "
            "0 for a server of your own"
        )
    return price
