"""Chain-of-Functions prompts: ask for a whole program, or for the rest of one.

The Chain-of-Functions style (DreamPRM-Code, section 3) asks for hierarchical functions, high-level
first, each with a docstring that explains it, so that every function is a readable reasoning step.
The bare style gives the statement alone, for a policy trained to answer it with such a program.
`answers.py` is the way back, from an answer to a program.
"""

import dataclasses
from dataclasses import dataclass

from pipeline.config import PromptStyle
from pipeline.records import Problem, content_hash

_SYSTEM = """\
You are an expert Python programmer. You solve programming problems with correct, efficient \
Python 3 programs written as a chain of functions."""

_RULES_STDIN = """\
Read the input from standard input and write the answer to standard output.

Write the program as a chain of functions, from the most general to the most specific:
1. First `main()`: it reads the input, calls the other functions and prints the answer. Its \
docstring explains the approach, and which algorithm was chosen and why.
2. Then the functions that `main()` uses, then those that they use, and so on. Each has a \
docstring that says what it does and how.
3. One function per logical step: repeated or complex computations get functions of their own.
4. No nested functions. Imports go to the top, the call of `main()` to the very end.
"""

_RULES_METHOD = """\
Write `class Solution` as a chain of methods, from the most general to the most specific:
1. First the entry point, `{entry_point}`: it calls the other methods and returns the answer. Its \
docstring explains the approach, and which algorithm was chosen and why.
2. Then the methods that it uses, then those that they use, and so on. Each has a docstring that \
says what it does and how.
3. One method per logical step: repeated or complex computations get methods of their own.
4. No nested functions. Imports go to the top. Do not read input and do not call the solution.
"""

_RULES_FUNCTION = """\
Write the program as a chain of functions, from the most general to the most specific:
1. First the entry point, `{entry_point}`: it calls the other functions and returns the answer. \
Its docstring explains the approach, and which algorithm was chosen and why.
2. Then the functions that it uses, then those that they use, and so on. Each has a docstring \
that says what it does and how.
3. One function per logical step: repeated or complex computations get functions of their own.
4. No nested functions. Imports go to the top. Do not read input and do not call the solution.
"""

_PROBLEM = """\
### Problem
{statement}
"""

_STARTER = """\
### Starter code
```python
{starter_code}
```
"""

_TASK = """\
### Task
{rules}
Answer with the whole program in one ```python code block.
"""

_COMPLETION_TASK = """\
### Task
{rules}
The first functions are already written and must stay exactly as they are:
```python
{prefix}
```
Write only the remaining functions, and the code that follows them, in one ```python code block. \
It is appended to the code above as it is, so continue on the next line, {indentation}, and do not \
repeat or redefine anything that is there.
"""

_FENCE_OPENING = "```python\n"
_FENCE_CLOSING = "\n```"

# What the prompts are made of, in order; the version of a style is its hash.
_TEMPLATES = {
    PromptStyle.CHAIN_OF_FUNCTIONS: (
        *(_SYSTEM, _PROBLEM, _STARTER, _RULES_STDIN, _RULES_METHOD, _RULES_FUNCTION),
        *(_TASK, _COMPLETION_TASK, _FENCE_OPENING, _FENCE_CLOSING),
    ),
    PromptStyle.BARE: ("{statement}",),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy is asked: chat messages, and the beginning of the answer for a policy that
    continues it (`prefill`, empty for none). Nothing after a text of `stop` counts: a policy may
    end its answer before it."""

    system: str
    user: str
    prefill: str = ""
    stop: tuple[str, ...] = ()


def prompt_version(style: PromptStyle) -> str:
    """Changes with every word of the style's prompts."""
    return f"{style.value}-{content_hash(*_TEMPLATES[style])}"


def solution_prompt(problem: Problem, style: PromptStyle) -> Prompt:
    """Ask for a whole program."""
    if style is PromptStyle.BARE:
        return Prompt(system="", user=problem.statement)
    return Prompt(_SYSTEM, _user(problem, _TASK.format(rules=_rules(problem))))


def completion_prompt(
    problem: Problem, prefix: str, style: PromptStyle, *, continued: bool
) -> Prompt:
    """Ask for the rest of the program that begins with `prefix`.

    `continued`: the policy continues a prefill. It is then asked what it was asked for the whole
    program and made to begin its answer with `prefix`, so that a rollout is a sample of the very
    policy that wrote the solution. Otherwise `prefix` is shown and the remaining functions are
    asked for. Raises ValueError for the bare style there: it has no words to ask with.
    """
    if continued:
        whole = solution_prompt(problem, style)
        if style is PromptStyle.BARE:
            return dataclasses.replace(whole, prefill=prefix)
        return dataclasses.replace(whole, prefill=_FENCE_OPENING + prefix, stop=(_FENCE_CLOSING,))
    if style is PromptStyle.BARE:
        raise ValueError(
            "prompt 'bare' has no words to ask for a completion with: use a policy that continues "
            "a prefill (vllm), or prompt 'chain_of_functions'"
        )
    last_line = prefix.rstrip().rsplit("\n", 1)[-1]
    task = _COMPLETION_TASK.format(
        rules=_rules(problem),
        prefix=prefix.strip("\n"),
        indentation=(
            "inside the class and with its indentation"
            if _is_method(problem) and last_line[:1].isspace()
            else "without indentation"
        ),
    )
    return Prompt(_SYSTEM, _user(problem, task))


def _user(problem: Problem, task: str) -> str:
    parts = [_PROBLEM.format(statement=problem.statement.strip())]
    if problem.starter_code.strip():
        parts.append(_STARTER.format(starter_code=problem.starter_code.rstrip()))
    return "\n".join((*parts, task))


def _rules(problem: Problem) -> str:
    if problem.entry_point is None:
        return _RULES_STDIN
    template = _RULES_METHOD if _is_method(problem) else _RULES_FUNCTION
    return template.format(entry_point=problem.entry_point.rpartition(".")[2])


def _is_method(problem: Problem) -> bool:
    return problem.entry_point is not None and "." in problem.entry_point
