"""From answers back to programs."""

import gzip
import json
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers import extract_code, join_completion, program_of
from pipeline.config import PromptStyle

RECORDED = Path(__file__).parents[2] / "shared/data/livecodebench-o1-mini.jsonl.gz"
PROGRAM = "import sys\n\ndef main():\n    print(solve())\n\ndef solve():\n    return 1\n\nmain()\n"
PREFIX = "import sys\n\ndef main():\n    print(solve())\n"
REST = "\ndef solve():\n    return 1\n\nmain()\n"
CLASS_PREFIX = "class Solution:\n    def run(self, n):\n        return self.twice(n)\n"


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{PROGRAM}```",
        f"Here it is.\n\n```Python\n{PROGRAM}```\nIt prints 1.",
        f"```\n{PROGRAM}```",
        f"~~~py\n{PROGRAM}~~~\n",
        f"````python\n{PROGRAM}````",
        f"```\n```python\n{PROGRAM}```\n```",
        f"First an idea:\n```python\ndef main(): pass\n```\nBetter:\n```python\n{PROGRAM}```",
        f"```python\n{PROGRAM}```\nIts output:\n```\n1\n```",
        f"```python\n{PROGRAM}```\nRun it:\n```bash\npython solution.py\n```",
        f"```python\n{PROGRAM}```\nUse it:\n```python\nprint(solve())\n```",
        textwrap.indent(f"```python\n{PROGRAM}```", "   ").join(("1. Write it:\n", "\n2. Run it.")),
        f"Cut off:\n```python\n{PROGRAM}",
        f"Without fences:\n\n{PROGRAM}",
        PROGRAM,
    ],
)
def test_the_program_is_found_in_an_answer_verbatim(answer):
    assert extract_code(answer) == PROGRAM


DOCUMENTED = (
    "def main():\n"
    '    """Reads numbers.\n\n    ```\n    1 2\n    ```\n    ~~~\n    3\n    ~~~\n    """\n'
    "    print(solve())\n\n"
    'def solve():\n    r"""\n```python\nx = 1\n```\n"""\n    return 1\n'
)


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{DOCUMENTED}```",
        f"~~~python\n{DOCUMENTED}~~~\nThat is all.",
        f"An idea:\n```\nx\n```\n```python\n{DOCUMENTED}```\nOutput:\n```\n1\n```\n",
    ],
)
def test_a_fence_inside_a_docstring_does_not_end_the_program(answer):
    assert extract_code(answer) == DOCUMENTED


def test_a_program_that_never_parses_ends_at_its_first_closing_fence():
    answer = "```python\ndef f(:\n```\nOr:\n```\ntext here\n```\n"
    assert extract_code(answer) == "def f(:\n"


@pytest.mark.parametrize("answer", ["", "\n", "Sorry.", "I cannot solve this.", "```python\n```"])
def test_an_answer_without_code_holds_no_program(answer):
    assert extract_code(answer) == ""


def test_a_program_cut_off_without_fences_is_still_the_program():
    assert extract_code("So:\nfrom math import inf\ndef f(x):\n    return (") == (
        "from math import inf\ndef f(x):\n    return ("
    )


def test_a_bare_answer_is_the_program_itself():
    assert program_of("x = (\n```", PromptStyle.BARE) == "x = (\n```"
    assert program_of(" \n", PromptStyle.BARE) == ""
    assert program_of("```python\nx = 1\n```", PromptStyle.CHAIN_OF_FUNCTIONS) == "x = 1\n"


def test_a_continued_answer_goes_on_up_to_the_closing_fence():
    assert join_completion(PREFIX, REST, continued=True) == PREFIX + REST
    assert join_completion(PREFIX, REST + "```\nDone.", continued=True) == PREFIX + REST


def test_a_continued_answer_goes_on_through_the_fences_of_its_docstrings():
    rest = '\ndef solve():\n    """\n    ```\n    1\n    ```\n    """\n    return 1\n\nmain()\n'
    assert join_completion(PREFIX, f"{rest}```\nDone.", continued=True) == PREFIX + rest


def test_a_continued_answer_that_never_parses_goes_on_up_to_its_first_fence():
    whole = join_completion(PREFIX, "\ndef solve(:\n```\nOr else:\n```\n", continued=True)
    assert whole == PREFIX + "\ndef solve(:\n"


def test_a_continued_answer_may_end_the_program_at_once():
    assert join_completion(PREFIX, "", continued=True) == PREFIX


@pytest.mark.parametrize("answer", [f"```python\n{REST}```", f"Sure:\n```python\n{REST}```", REST])
def test_the_remaining_functions_are_appended_to_the_prefix(answer):
    assert join_completion(PREFIX, answer, continued=False) == PREFIX + REST


def test_the_rest_of_a_class_is_appended_with_its_indentation():
    rest = "    def twice(self, n):\n        return 2 * n\n"
    whole = join_completion(CLASS_PREFIX, f"```python\n{rest}```", continued=False)
    assert whole == CLASS_PREFIX + rest


def test_remaining_functions_in_several_blocks_are_all_taken():
    answer = "```python\ndef solve():\n    return 1\n```\nand\n```python\nmain()\n```"
    assert join_completion(PREFIX, answer, continued=False) == (
        PREFIX + "def solve():\n    return 1\n\nmain()\n"
    )


def test_a_completion_that_repeats_the_prefix_verbatim_is_accepted():
    answer = f"```python\n{PROGRAM}```"
    assert join_completion(PREFIX, answer, continued=False) == PROGRAM
    spaced = join_completion(f"\n{PREFIX}", answer, continued=False)
    assert spaced == f"\n{PROGRAM}"


@pytest.mark.parametrize(
    "answer",
    [
        PROGRAM.replace("print(solve())", "print(solve(), end='')"),
        PROGRAM.replace("print(solve())", "print(solve()) # prints"),
        PROGRAM.replace("import sys\n", ""),
        REST.replace("main()", "def main():\n    pass"),
        REST.replace("main()", "main = 3"),
        REST.replace("main()", "main = lambda: print(2)\nmain()"),
        REST.replace("main()", "if True:\n    def main():\n        pass"),
        REST.replace("main()", "from solution import main"),
    ],
)
def test_a_completion_that_rewrites_the_prefix_is_rejected(answer):
    assert join_completion(PREFIX, f"```python\n{answer}```", continued=False) is None


def test_a_completion_may_wrap_a_function_of_the_prefix():
    rest = REST.replace("main()", "from functools import cache\nmain = cache(main)\nmain()")
    assert join_completion(PREFIX, f"```python\n{rest}```", continued=False) == PREFIX + rest


@pytest.mark.parametrize("body", ["run(self, n): return 2", "twice(self, n): return 2 * n"])
def test_a_completion_that_opens_the_class_again_is_rejected(body):
    answer = f"```python\nclass Solution:\n    def {body}\n```"
    assert join_completion(CLASS_PREFIX, answer, continued=False) is None


@pytest.mark.parametrize("answer", ["", "I cannot.", "```python\n\n```"])
def test_a_chat_completion_without_code_is_rejected(answer):
    assert join_completion(PREFIX, answer, continued=False) is None


pieces = st.lists(
    st.sampled_from(["```", "```python\n", "\n", "def f():\n    pass\n", "class A:\n", "~~~", "x "])
    | st.text(max_size=8),
    max_size=12,
).map("".join)


@given(prefix=pieces, text=pieces, continued=st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_joined_program_always_begins_with_its_prefix(prefix, text, continued):
    whole = join_completion(prefix, text, continued=continued)
    assert whole is None or whole.startswith(prefix)


@given(pieces)
@settings(max_examples=200, deadline=None)
def test_the_program_of_any_answer_is_a_piece_of_it_but_for_indentation(text):
    assert "".join(extract_code(text).split()) in "".join(text.split())


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED.name} is not in shared/data")
def test_recorded_answers_give_the_program_that_livecodebench_took():
    differ = []
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            found = extract_code(row["output_list"][0]).strip("\n")
            if found != row["code_list"][0].strip("\n"):
                differ.append((row["question_id"], row["code_list"][0]))
    # Fenced twice: LiveCodeBench takes what is between the last two fences, nothing.
    assert differ == [("3637", ""), ("abc384_g", "")]
