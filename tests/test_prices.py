import datetime

import pytest
from pydantic import ValidationError

from pipeline.config import PRICES, OpenAIPolicy, Price, price_of

PRICE = Price(input=1.0, cached_input=0.25, output=10.0, as_of=datetime.date(2025, 1, 1))


def test_a_bill_counts_cached_prompts_and_batches_at_their_discount() -> None:
    assert PRICE.cost_usd(1_000_000, 400_000, 100_000) == pytest.approx(0.6 + 0.1 + 1.0)
    assert PRICE.cost_usd(1_000_000, 400_000, 100_000, batch=True) == pytest.approx(1.7 / 2)


def test_without_a_discount_a_cached_prompt_costs_what_any_does() -> None:
    full = PRICE.model_copy(update={"cached_input": None})
    assert full.cost_usd(1_000_000, 400_000, 0) == pytest.approx(1.0)


def test_a_model_has_the_price_of_the_table_and_so_has_its_snapshot() -> None:
    assert OpenAIPolicy(model="o3").price == PRICES["o3"]
    assert price_of("o4-mini-2025-04-16") == PRICES["o4-mini"]


def test_an_unknown_model_asks_for_its_price() -> None:
    with pytest.raises(
        ValidationError, match=r"no price is known for the model 'o9'.*price\.input"
    ):
        OpenAIPolicy.model_validate({"model": "o9"})
    told = {"model": "o9", "price": {"input": 0, "output": 0, "as_of": "2026-01-01"}}
    assert OpenAIPolicy.model_validate(told).price.input == 0.0
