"""The report as one HTML page: pictures and style inside, nothing fetched from anywhere."""

import base64
from collections.abc import Sequence
from html import escape

from pipeline.evaluation.html import badge, details, pairs, section
from pipeline.evaluation.page_tables import (
    accuracy_table,
    aggregator_tables,
    label_table,
    other_pairs,
    paper_comparison,
)
from pipeline.evaluation.results import Difference, Finding, Selection
from pipeline.evaluation.run_facts import RunFacts
from pipeline.evaluation.style import CSS
from pipeline.evaluation.table import percent, points
from sandbox.protocol import Isolation


def report_page(
    selection: Selection, facts: RunFacts, pictures: Sequence[tuple[str, str, bytes]]
) -> str:
    """The page. `pictures` are (title, what to look for, PNG bytes), in the order to show them."""
    title = f"Best-of-{selection.most_candidates} selection: {facts.name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _lead(selection),
        _isolation(facts),
        section("What was found", _found(selection)),
        section("Problems solved", accuracy_table(selection) + aggregator_tables(selection)),
        *(_figure(*picture) for picture in pictures),
        section("Beside the papers' figures", paper_comparison(selection))
        if facts.benchmark == "livecodebench"
        else "",
        section("Step labels against the truth", label_table(selection))
        if selection.labels
        else "",
        section("How to read this", _reading(selection)),
        section("What was run", _run(facts)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _lead(selection: Selection) -> str:
    most = selection.most_candidates
    programs = f"{'up to ' if selection.problems_with_fewer_candidates else ''}{most} programs"
    levels = ", ".join(
        f"{level}: {count}" for level, count in selection.problems_by_difficulty.items()
    )
    return (
        f'<p class="lead">A policy wrote {programs} for each of {selection.problems} test problems '
        f"({escape(levels)}). Each method below picks one program per problem, and the unit tests "
        "say whether it was right.</p>"
    )


def _isolation(facts: RunFacts) -> str:
    if not facts.unsafe:
        return ""
    count = facts.verdicts[Isolation.NONE]
    return (
        '<p class="alarm" role="alert"><strong>No isolation.</strong> '
        f"{count:,} of {sum(facts.verdicts.values()):,} verdicts come from the unsafe process "
        "sandbox: model-written programs ran with resource limits alone, and could read and change "
        "whatever this account can. Do not publish these figures: start a Docker engine and run "
        "again.</p>"
    )


def _found(selection: Selection) -> str:
    items = [_sentence(selection, d) for d in selection.differences if d.planned]
    none, every = selection.problems_none_passed, selection.problems_all_passed
    items.append(
        f"{none} problems have no passing candidate (nothing can select one) and {every} have only "
        f"passing ones: methods can differ on the other {selection.problems - none - every}."
    )
    items += [
        f"{escape(row.title)} has no score for {row.unscored} of {selection.candidates} candidates;"
        " they rank last."
        for row in selection.methods
        if row.unscored
    ]
    if selection.problems_with_fewer_candidates:
        items.append(
            f"{selection.problems_with_fewer_candidates} problems have fewer than "
            f"{selection.most_candidates} candidates and are judged on what they have."
        )
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" + other_pairs(selection)


_VERB = {
    Finding.HIGHER: "solves more than",
    Finding.LOWER: "solves less than",
    Finding.WITHIN_NOISE: "cannot be told from",
    Finding.TOO_FEW: "may or may not differ from",
}


def _sentence(selection: Selection, difference: Difference) -> str:
    method, baseline = selection.method(difference.method), selection.method(difference.baseline)
    return (
        f"<strong>{escape(method.title)}</strong> {_VERB[difference.finding]} "
        f"<strong>{escape(baseline.title)}</strong>: {percent(method.overall.value)} % against "
        f"{percent(baseline.overall.value)} %, {points(difference.difference)} points "
        f"{badge(difference.finding)}"
    )


def _figure(title: str, caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return section(
        title,
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>",
    )


def _reading(selection: Selection) -> str:
    return f"""<dl>
<dt>pass@1</dt><dd>A program drawn at random: what the policy does alone.</dd>
<dt>oracle</dt><dd>Picks a passing program wherever there is one: no method can do better.</dd>
<dt>accuracy at N</dt><dd>The exact expectation over all ways to draw N of a problem's candidates;
equal scores share their credit. No subset is sampled.</dd>
<dt>intervals</dt><dd>{100 * selection.confidence:g}%, from {selection.bootstrap:,} resamples of the
problems. They cover which problems were asked, and <em>not</em> the training seed: one training run
per method can be lucky. An interval without width means that all problems agree, which is no
certainty when they are few.</dd>
<dt>within noise</dt><dd>The interval of the paired difference contains 0. Judge by it, and not by
whether two methods' own intervals overlap: on the same problems their errors go together.</dd>
<dt>steps read by</dt><dd>How the scores of a program's functions become one number. It is chosen on
the validation problems, never on these.</dd>
</dl>"""


def _run(facts: RunFacts) -> str:
    judged = {
        f"programs judged, isolation {kind.value}": count for kind, count in facts.verdicts.items()
    }
    counts = {label: f"{count:,}" for label, count in {**facts.counts, **judged}.items()}
    options = facts.options()
    quarantined = (
        f"<h3>Given up, and left out of everything above</h3>{pairs(facts.quarantined)}"
        if facts.quarantined
        else ""
    )
    return (
        f'{quarantined}<div class="columns"><div><h3>Counts</h3>{pairs(counts)}</div>'
        f"<div><h3>Versions</h3>{pairs(facts.versions)}</div></div>"
        + details(f"All {len(options)} options of this run", pairs(options))
    )
