"""From the text of an answer back to a program.

A rollout keeps its prefix verbatim: an answer that rewrites it is rejected, because its outcome
would be about another prefix.
"""

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.config import PromptStyle
from pipeline.functions import encode, parse, split_steps

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = {"python", "python3", "py", "py3"}
_CODE_LINE = re.compile(
    r"^(?:(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[(:]|@\w"
    r"|import[ \t]+\w[\w.]*[ \t]*(?:,|as\b|$)|from[ \t]+\w[\w.]*[ \t]+import\b)",
    re.MULTILINE,
)
_DEFINITION = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]", re.MULTILINE)
_MAX_CLOSINGS = 16  # fences tried as the end of one block: bounds the time on hostile text
_CLASS = re.compile(r"^class[ \t]+(\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Block:
    language: str
    code: str


def program_of(text: str, style: PromptStyle) -> str:
    """The program that an answer in this style holds; "" where it holds none.

    A bare answer is the program itself, verbatim.
    """
    if style is PromptStyle.BARE:
        return text if text.strip() else ""
    return extract_code(text)


def extract_code(text: str) -> str:
    """The program in a chat answer; "" where there is none.

    Of several fenced blocks the last Python one that defines something counts, else the last one
    that is code (sample inputs and outputs are fenced too, and so is how to call the program); a
    block that was cut off reaches to the end of the text. A fence inside a docstring does not end
    its block. Without fences the text is taken whole if it is a program, else from its first line
    that can only be code on.
    """
    blocks = _blocks(text)
    if blocks:
        python = [block for block in blocks if block.language in _PYTHON]
        candidates = [block.code for block in python or blocks if block.code.strip()]
        programs = [code for code in candidates if _is_program(code)]
        defining = [code for code in programs if _DEFINITION.search(code)]
        return (defining or programs or candidates or [""])[-1]
    if _is_program(text):
        return text
    first = _CODE_LINE.search(text)
    return text[first.start() :] if first else ""


def join_completion(prefix: str, text: str, *, continued: bool) -> str | None:
    """The whole program of a rollout, `prefix` verbatim; None where the answer rewrote the prefix
    or holds no code.

    `continued`: the policy went on right after `prefix`, up to the closing fence if one was opened.
    It may then also have ended the program at once, which is an answer like any other. Otherwise
    `text` is a chat answer with the remaining functions; that it repeats the prefix first, verbatim
    but for blank lines around it, is accepted.
    """
    if continued:
        return prefix + _up_to_closing(prefix, text)
    code = _remaining_code(text)
    if not code.strip():
        return None
    repeated, body = prefix.strip("\n"), code.lstrip("\n")
    if body == repeated or body.startswith(repeated + "\n"):
        return prefix + body[len(repeated) + 1 :]
    whole = prefix + ("" if prefix.endswith(("\n", "\r")) else "\n") + code
    return None if _redefines(prefix, code, whole) else whole


def _remaining_code(text: str) -> str:
    """Like `extract_code`, for a fragment that may be the indented rest of a class."""
    blocks = _blocks(text)
    python = [block for block in blocks if block.language in _PYTHON]
    if blocks:
        return "\n".join(block.code for block in python or blocks[-1:])
    return extract_code(text)


def _redefines(prefix: str, code: str, whole: str) -> bool:
    """Whether a function or class of the prefix is defined, or its name bound, again after it."""
    if set(_CLASS.findall(prefix)) & set(_CLASS.findall(code)):
        return True
    steps, cut = split_steps(whole), len(encode(prefix))
    before = {step.name for step in steps if step.end <= cut}
    if any(step.name in before for step in steps if step.end > cut):
        return True
    tree = parse(whole)
    return tree is not None and bool(before & set(_bound_after(tree.body, prefix.count("\n"))))


def _bound_after(body: Sequence[ast.AST], line: int) -> Iterator[str]:
    """The names that the statements beyond a line bind in the module, by whatever way but a wrapper
    (`f = cache(f)`), which leaves the function what it was."""
    for node in body:
        if (getattr(node, "end_lineno", None) or line + 1) <= line:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Lambda):
            continue
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                yield node.id
        else:
            children = list(ast.iter_child_nodes(node))
            bound = set(_bound_after(children, line))
            if isinstance(node, ast.Assign):
                bound -= {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
            yield from bound


def _blocks(text: str) -> list[_Block]:
    """The fenced blocks; one that is not closed reaches to the end of the text.

    A fence with a language right after an opening one opens the block anew (some models fence
    twice).
    """
    blocks: list[_Block] = []
    opening: re.Match[str] | None = None
    fences = list(_FENCE.finditer(text))
    number = 0
    while number < len(fences):
        fence = fences[number]
        inside = text[opening.end() + 1 : fence.start()] if opening else ""
        if opening is None or (fence[3] and not inside.strip()):
            opening = fence
        elif _closes(opening, fence):
            number = _closing(text, opening, fences, number)
            inside = _inside(text, opening, fences[number].start())
            blocks.append(_Block(opening[3].lower(), inside))
            opening = None
        number += 1
    if opening:
        blocks.append(_Block(opening[3].lower(), _inside(text, opening, len(text))))
    return blocks


def _inside(text: str, opening: re.Match[str], end: int) -> str:
    """What a fence opens, without the indentation of a block that stands in a list."""
    indent, code = opening[1], text[opening.end() + 1 : end]
    if not indent or any(not li.startswith(indent) for li in code.splitlines() if li.strip()):
        return code
    return re.sub(f"^{re.escape(indent)}", "", code, flags=re.MULTILINE)


def _closes(opening: re.Match[str], fence: re.Match[str]) -> bool:
    return fence[2].startswith(opening[2]) and not fence[3]


def _closing(text: str, opening: re.Match[str], fences: Sequence[re.Match[str]], first: int) -> int:
    """Of the fences from `first` on that may close a block, the one that does: the first that
    leaves a program (those before it are in its docstrings), else the first of all."""
    tried = [n for n in range(first, len(fences)) if _closes(opening, fences[n])][:_MAX_CLOSINGS]
    codes = ((n, _inside(text, opening, fences[n].start())) for n in tried)
    return next((n for n, code in codes if parse(code) is not None), first)


def _up_to_closing(prefix: str, text: str) -> str:
    """What a policy that continues `prefix` wrote of the program, by the same rule."""
    closings = list(itertools.islice(_FENCE.finditer(text), _MAX_CLOSINGS))
    if not closings:
        return text
    ends = [closing.start() for closing in closings]
    return text[: next((end for end in ends if parse(prefix + text[:end]) is not None), ends[0])]


def _is_program(text: str) -> bool:
    """Whether the text parses and does something: one word of prose is an expression too."""
    tree = parse(text)
    return tree is not None and any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in tree.body
    )
