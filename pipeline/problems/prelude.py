"""What programs of a benchmark may use without saying so: code that runs in front of them."""

# LiveCodeBench's judge imports these for every program, in this order: names of later modules win,
# and `builtins` takes `open`, `pow` and `sum` back.
_STAR_IMPORTS = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json"),
)
LIVECODEBENCH = (
    "".join(f"from {name} import *\n" for name in (*_STAR_IMPORTS, "builtins", "typing"))
    + f"import {', '.join(_STAR_IMPORTS)}\n"
    + "sys.setrecursionlimit(50000)\n"
)

# LeetCode's own definitions.
NODES = """\
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right


"""
