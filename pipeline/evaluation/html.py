"""The few HTML shapes that a report is made of. Cells are HTML: whoever writes one escapes it."""

from collections.abc import Mapping, Sequence
from html import escape

from pipeline.evaluation.results import Finding


def section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "figures") -> str:
    """It scrolls sideways where the page is too narrow. No head where there are no names."""
    thead = f"<thead>{_row('th', head)}</thead>" if head else ""
    body = "".join(_row("td", cells) for cells in rows)
    return f'<div class="scroll"><table class="{kind}">{thead}<tbody>{body}</tbody></table></div>'


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def pairs(rows: Mapping[str, str]) -> str:
    """Plain text on both sides."""
    return table([], [[escape(key), escape(value)] for key, value in rows.items()], kind="pairs")


def details(summary: str, content: str) -> str:
    """Folded away until asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def badge(finding: Finding) -> str:
    return f'<span class="badge {finding.name.lower()}">{finding.value}</span>'


def small_range(low: str, high: str) -> str:
    return f'<small class="range">{low} to {high}</small>'
