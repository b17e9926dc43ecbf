"""A program splits into its functions, byte for byte, whatever the text is."""

import ast
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.functions import MODULE, UNPARSED, encode, prefix, split_steps

RECORDED = Path(__file__).parents[2] / "shared/data/livecodebench-o1-mini.jsonl.gz"


def parts(code: str) -> list[str]:
    source = encode(code)
    return [source[s.start : s.end].decode("utf-8", "surrogatepass") for s in split_steps(code)]


def names(code: str) -> list[str]:
    return [step.name for step in split_steps(code)]


def assert_covers(code: str) -> None:
    steps = split_steps(code, "s")
    source = encode(code)
    ends = [step.end for step in steps]
    assert [step.start for step in steps] == [0, *ends][: len(ends)]
    assert all(step.start < step.end for step in steps)
    assert (ends[-1] if ends else 0) == len(source)
    assert [step.step_index for step in steps] == list(range(len(steps)))
    assert len({step.step_id for step in steps}) == len(steps)


def test_empty_code_has_no_steps():
    assert split_steps("") == []


def test_each_function_is_a_step_with_what_stands_above_it():
    code = (
        "import sys\n\n# reads\ndef main():\n    pass\n\n\n"
        "LIMIT = 3\n@cache\ndef solve(n):\n    return n  # done\n"
    )
    assert names(code) == ["main", "solve"]
    assert parts(code) == [
        "import sys\n\n# reads\ndef main():\n    pass\n",
        "\n\nLIMIT = 3\n@cache\ndef solve(n):\n    return n  # done\n",
    ]


def test_trailing_code_belongs_to_the_last_step():
    code = "def main():\n    pass\n\nif __name__ == '__main__':\n    main()\n"
    assert parts(code) == [code]


def test_methods_of_top_level_classes_are_steps_named_after_their_class():
    code = (
        "class Solution:\n    size = 1\n    def solve(self):\n        return self.go()\n\n"
        "    async def go(self):\n        return 1\n\nclass Empty: pass\n\ndef late(): pass\n"
    )
    assert names(code) == ["Solution.solve", "Solution.go", "late"]
    assert parts(code)[0] == (
        "class Solution:\n    size = 1\n    def solve(self):\n        return self.go()\n"
    )


def test_nested_functions_lambdas_and_conditional_definitions_are_no_steps():
    code = (
        "def main():\n    def inner():\n        pass\n    class Local:\n        def m(self): pass\n"
        "double = lambda x: 2 * x\nif double:\n    def maybe(): pass\n"
    )
    assert names(code) == ["main"]


def test_a_program_without_functions_is_one_step():
    assert names("print(input())\n") == [MODULE]
    assert names("  \n") == [MODULE]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_line_ending_is_kept(newline):
    code = newline.join(["def a():", "\treturn 'é'", "", "def b(): return '文'", "b()", ""])
    assert parts(code) == [
        newline.join(["def a():", "\treturn 'é'", ""]),
        newline.join(["", "def b(): return '文'", "b()", ""]),
    ]


def test_every_step_of_a_program_with_all_kinds_of_definitions_is_found():
    code = (
        "#!/usr/bin/env python3\n# -*- coding: latin-1 -*-\n'''Sums.'''\nfrom sys import stdin\n\n"
        "@(lambda f: f)\n@cache  # twice\n\ndef a(x, /, *, y: int = 3) -> int:\n\treturn x\n"
        "async def b():\n    async with c as d: pass\n"
        "f = lambda: (yield)\n"
        "class C(Base, metaclass=M):\n    '''Doc.'''\n    def m(self): ...\n"
        "    class Inner:\n        def not_a_step(self): ...\n"
        "    if True:\n        def neither(self): ...\n"
        "    @staticmethod\n    def ö(): return '''\ndef text(): pass\n'''\n\n"
        "if __name__ == '__main__':\n    def main(): pass\n    main()\n"
    )
    assert names(code) == ["a", "b", "C.m", "C.ö"]
    assert [part.split("\n")[0] for part in parts(code)] == [
        *("#!/usr/bin/env python3", "async def b():", "f = lambda: (yield)", "    class Inner:")
    ]
    assert [part.rstrip("\n").split("\n")[-1] for part in parts(code)] == [
        *("\treturn x", "    async with c as d: pass", "    def m(self): ...", "    main()")
    ]


def test_a_byte_order_mark_which_python_takes_in_files_alone_leaves_one_unparsed_step():
    code = "\ufeffdef a():\n    pass\ndef b():\n    pass\n"
    assert names(code) == [UNPARSED]
    assert_covers(code)


def test_a_form_feed_starts_no_line_of_its_own():
    code = "def a():\n    pass\n\x0c\ndef b():\n\x0c    pass\n"
    assert names(code) == ["a", "b"]
    assert "".join(parts(code)) == code


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def a():\n\tif x:\n\t        return 1\ndef b(): pass\n", ["a", "b"]),
        ("def a():\n        x = 1\n\ty = 2\ndef b(): pass\n", [UNPARSED]),
        ("def a(): pass\ndef b(): pass\n\tx = 1\ndef c(): pass\n", ["a", UNPARSED]),
        ("def a(): pass; b = 1; def c(): pass\n", [UNPARSED]),
        ("def a(): pass\r\ndef b():\r    pass\n\rdef c(): pass", ["a", "b", "c"]),
        ("print 'two'\ndef a(): pass\n", [UNPARSED]),
        ("def a(): pass\nprint 'two'\n", ["a", UNPARSED]),
    ],
)
def test_tabs_line_ends_and_old_python_split_where_the_parser_lets_them(code, expected):
    assert names(code) == expected
    assert_covers(code)


def test_characters_that_only_python_strings_count_as_line_ends_do_not_shift_a_cut():
    code = "def a():\n    return '\x0c\x1c\u2028'\ndef b():\n    pass\n"
    assert names(code) == ["a", "b"]
    assert parts(code)[0].endswith("'\n")


def test_a_backslash_after_the_last_statement_keeps_its_next_line():
    code = "def a(): return 1 \\\n\ndef b(): pass\n"
    assert parts(code) == ["def a(): return 1 \\\n\n", "def b(): pass\n"]


def test_a_program_cut_off_in_a_function_keeps_the_functions_before_it():
    code = "def a():\n    pass\n\n# next\ndef b():\n    return (1 +"
    assert names(code) == ["a", UNPARSED]
    assert parts(code)[0] == "def a():\n    pass\n"


def test_a_program_cut_off_in_a_method_keeps_the_methods_before_it():
    code = "class S:\n    def a(self):\n        pass\n\n    @cache\n    def b(self):\n        x = ["
    assert names(code) == ["S.a", UNPARSED]


def test_a_function_that_breaks_inside_is_not_cut_at_a_nested_function():
    code = "def a():\n    x = 1\n    def inner():\n        return ("
    assert names(code) == [UNPARSED]


@pytest.mark.parametrize("line", ["print 'x'", "This is how it works:", "x = 1", "def f(:"])
def test_functions_before_an_error_are_found_whatever_follows_it(line: str) -> None:
    functions = [f"def f{i}():\n    return {i}\n\n" for i in range(5)]
    code = "".join(functions) + "It does not parse.\n" + f"{line}\n" * 500
    assert names(code) == ["f0", "f1", "f2", "f3", "f4", UNPARSED]
    assert_covers(code)


def test_prose_is_one_step():
    assert names("I am sorry, but I cannot.\nTry again?") == [UNPARSED]


@pytest.mark.parametrize("ending", ["\x00", "x = '\ud800'", "(" * 10_000, "-" * 50_000 + "1"])
def test_what_the_parser_cannot_take_never_raises(ending):
    code = "def a():\n    pass\n" + ending
    assert names(code) == ["a", UNPARSED]
    assert_covers(code)


def test_a_prefix_is_the_program_up_to_the_end_of_its_step():
    code = "def a(): return 'é'\ndef b(): pass\n"
    first, last = split_steps(code)
    assert prefix(code, first) == "def a(): return 'é'\n"
    assert prefix(code, last) == code


def test_step_ids_tell_solutions_apart_and_repeat_for_the_same_one():
    code = "def a(): pass\ndef b(): pass\n"
    assert split_steps(code, "one") == split_steps(code, "one")
    ids = {step.step_id for name in ("one", "two") for step in split_steps(code, name)}
    assert len(ids) == 4


any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
fragments = st.sampled_from(
    [
        "def f(a, b=1):\n    '''doc\ndef not_this(): pass\n'''\n    return a\n",
        "async def g():\n\tawait x\n",
        "@cache\n@other(1)\ndef h(): return lambda: 1\n",
        "class A(B):\n    x = 1\n    def m(self): pass\n    # end\n    @property\n"
        "    def n(self):\n"
        "        def q(): pass\n        return q\n    y = 2\n",
        "# def commented(): pass\n",
        "import os, sys\n",
        "if __name__ == '__main__':\n    main()\n",
        "\n\n",
        "x = [\n1,\n2]\n",
        "def é(): return '\\d'\n",
        "\x0cdef k(): pass ; pass\n",
        "def broken(:\n",
        "    return 3\n",
        "\ufeff",
        "\tif x:\n        pass\n",
        "\x00",
        "\ud800",
        "print 'two'\n",
        "match x:\n    case {'a': [b, *_]}: pass\n",
        "def n(): return f'{a!r:>{b}} {{}}' + '''\n\\\n'''\n",
        "if x:\n    def inside(): pass\nelse: pass\n",
        "class E: pass; y = 3\n",
        "```\n",
    ]
)
programs = st.lists(fragments, max_size=12).map("".join)
texts = st.lists(st.one_of(fragments, any_text), max_size=8).map("".join)


@given(st.one_of(texts, any_text, programs.map(lambda code: code.replace("\n", "\r\n"))))
@settings(max_examples=300, deadline=None)
def test_steps_concatenate_to_any_text(code):
    assert_covers(code)


@given(programs)
@settings(max_examples=200, deadline=None)
def test_every_prefix_of_a_program_that_parses_is_such_a_program(code):
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return
    for index, step in enumerate(split_steps(code)):
        head = split_steps(prefix(code, step))
        assert [s.name for s in head] == names(code)[: index + 1]


@given(programs, st.integers(min_value=0, max_value=400))
@settings(max_examples=200, deadline=None)
def test_cutting_a_program_off_keeps_the_steps_that_were_finished(code, cut):
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return
    source = encode(code)[:cut]
    finished = [step.end for step in split_steps(code) if step.end <= len(source)]
    ends = [step.end for step in split_steps(source.decode("utf-8", "ignore"))]
    # What was cut off behind the last finished function may still belong to it as trailing code.
    assert ends[: len(finished)][:-1] == finished[:-1]


@pytest.mark.skipif(not RECORDED.exists(), reason=f"{RECORDED.name} is not in shared/data")
def test_all_recorded_programs_split_into_the_functions_that_python_sees():
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        codes = [json.loads(line)["code_list"][0] for line in lines]
    assert len(codes) == 880
    for code in codes:
        assert_covers(code)
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        expected = [
            function.name
            for node in ast.parse(code).body
            for function in (node.body if isinstance(node, ast.ClassDef) else [node])
            if isinstance(function, functions)
        ]
        found = [name.split(".")[-1] for name in names(code) if name != MODULE]
        assert found == expected
