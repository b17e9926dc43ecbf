"""What a policy is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import prompts
from pipeline.config import PromptStyle
from pipeline.prompts import completion_prompt, prompt_version, solution_prompt
from tests.scripted import problem

COF, BARE = PromptStyle.CHAIN_OF_FUNCTIONS, PromptStyle.BARE
METHOD = problem(
    starter_code="class Solution:\n    def double(self, n: int) -> int:\n        ",
    entry_point="Solution().double",
)
PREFIX = "class Solution:\n    def double(self, n):\n        return self.twice(n)\n"


def test_a_stdin_problem_asks_for_main_first():
    prompt = solution_prompt(problem(), COF)
    assert problem().statement in prompt.user
    assert "`main()`" in prompt.user
    assert "Starter code" not in prompt.user
    assert prompt.prefill == ""


def test_a_call_based_problem_asks_for_its_entry_point_first_and_shows_the_starter_code():
    prompt = solution_prompt(METHOD, COF)
    assert "entry point, `double`" in prompt.user
    assert "def double(self, n: int) -> int:" in prompt.user
    assert "`class Solution`" in prompt.user
    function = solution_prompt(problem(entry_point="double"), COF)
    assert "entry point, `double`" in function.user
    assert "`class Solution`" not in function.user


def test_the_bare_style_is_the_statement_alone():
    prompt = solution_prompt(problem(), BARE)
    assert (prompt.system, prompt.user, prompt.prefill) == ("", problem().statement, "")


@given(st.text())
def test_a_statement_goes_into_the_prompt_as_it_is(statement):
    assert statement.strip() in solution_prompt(problem(statement=statement), COF).user


@pytest.mark.parametrize("style", list(PromptStyle))
def test_a_continuing_policy_is_asked_as_for_the_whole_program_with_the_prefix_begun(style):
    prompt = completion_prompt(METHOD, PREFIX, style, continued=True)
    whole = solution_prompt(METHOD, style)
    assert (prompt.system, prompt.user) == (whole.system, whole.user)
    assert prompt.prefill == ("" if style is BARE else "```python\n") + PREFIX
    assert prompt.stop == (() if style is BARE else ("\n```",))


def test_a_chat_policy_is_shown_the_prefix_and_asked_for_the_remaining_functions():
    prompt = completion_prompt(METHOD, PREFIX, COF, continued=False)
    assert prompt.prefill == ""
    assert f"```python\n{PREFIX}```" in prompt.user
    assert "only the remaining functions" in prompt.user
    assert "inside the class and with its indentation" in prompt.user
    plain = completion_prompt(problem(), "def main():\n    go()\n", COF, continued=False)
    assert "without indentation" in plain.user


def test_the_bare_style_cannot_ask_a_chat_policy_for_a_completion():
    with pytest.raises(ValueError, match="chain_of_functions"):
        completion_prompt(problem(), PREFIX, BARE, continued=False)


def test_the_version_changes_with_every_template_of_the_style(monkeypatch):
    before = {style: prompt_version(style) for style in PromptStyle}
    assert len(set(before.values())) == len(PromptStyle)
    for index, template in enumerate(prompts._TEMPLATES[COF]):
        changed = list(prompts._TEMPLATES[COF])
        changed[index] = template + " "
        monkeypatch.setitem(prompts._TEMPLATES, COF, tuple(changed))
        assert prompt_version(COF) != before[COF]
        monkeypatch.undo()
    assert {style: prompt_version(style) for style in PromptStyle} == before
