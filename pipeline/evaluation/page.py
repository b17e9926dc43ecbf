"""The report as one HTML page: pictures and style inside, nothing fetched from anywhere."""

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape

from pipeline.evaluation.labels import LabelQuality
from pipeline.evaluation.metrics import Estimate
from pipeline.evaluation.plots import colours
from pipeline.evaluation.results import Difference, Finding, MethodResult, Selection
from pipeline.evaluation.run_facts import RunFacts
from pipeline.evaluation.selection import Aggregator
from pipeline.evaluation.style import CSS
from pipeline.evaluation.table import (
    percent,
    points,
)
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
        _section("What was found", _found(selection)),
        _section("Problems solved", _accuracy_table(selection)),
        *(_figure(*picture) for picture in pictures),
        _section("Step labels against the truth", _label_table(selection))
        if selection.labels
        else "",
        _section("How to read this", _reading(selection)),
        _section("What was run", _run(facts)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


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
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" + _others(selection)


def _others(selection: Selection) -> str:
    others = [d for d in selection.differences if not d.planned]
    if not others:
        return ""
    rows = [
        _row(
            "td",
            [
                escape(selection.method(d.method).title),
                escape(selection.method(d.baseline).title),
                points(d.difference),
                _badge(d.finding),
            ],
        )
        for d in others
    ]
    return (
        f"<details><summary>All {len(others)} other pairs</summary><p>The comparisons above were "
        "decided before any result. Among all these pairs some intervals leave out 0 by chance "
        "alone: take them as questions for another run.</p>"
        f"{_table(_row('th', ['method', 'against', 'points', 'finding']), rows)}</details>"
    )


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
        f"{_badge(difference.finding)}"
    )


def _badge(finding: Finding) -> str:
    return f'<span class="badge {finding.name.lower()}">{finding.value}</span>'


def _accuracy_table(selection: Selection) -> str:
    colour = colours(row.method for row in selection.methods)
    levels = selection.problems_by_difficulty
    head = _row(
        "th",
        ["method", "overall, %", _scale(selection)]
        + [f"{escape(level)}<small>n = {n}</small>" for level, n in levels.items()]
        + ["steps read by"],
    )
    rows = [
        _row(
            "td",
            [
                f'<i class="dot" style="background:{colour[row.method]}"></i>{escape(row.title)}',
                _cell(row.overall),
                _strip(row.overall, colour[row.method]),
                *(_cell(estimate) for estimate in row.by_difficulty.values()),
                _choice(row),
            ],
        )
        for row in selection.methods
    ]
    return _table(head, rows) + _aggregators(selection)


def _scale(selection: Selection) -> str:
    return f"0 to 100 %<small>bar: {100 * selection.confidence:g}% interval</small>"


def _strip(estimate: Estimate, colour: str) -> str:
    """The value as a tick and its interval as a bar, on a scale from 0 to 100 %."""
    bar = ""
    if estimate.interval is not None:
        low, high = 100 * estimate.interval.low, 100 * estimate.interval.high
        bar = f'<b style="left:{low:.2f}%;width:{high - low:.2f}%;background:{colour}"></b>'
    tick = f'<u style="left:{100 * estimate.value:.2f}%;background:{colour}"></u>'
    return f'<div class="strip">{bar}{tick}</div>'


def _cell(estimate: Estimate) -> str:
    text = percent(estimate.value)
    if estimate.interval is None:
        return f"{text}<small>one problem</small>"
    low, high = percent(estimate.interval.low), percent(estimate.interval.high)
    return f"{text}{_range(low, high)}"


def _choice(row: MethodResult) -> str:
    if row.choice is None:
        return ""
    return f"{row.choice.aggregator}<small>{escape(row.choice.reason)}</small>"


def _aggregators(selection: Selection) -> str:
    """What each aggregator would have solved on validation; nothing where nobody was asked."""
    chosen = [(row.title, row.choice) for row in selection.methods if row.choice is not None]
    if not any(choice.problems for _, choice in chosen):
        return ""
    rows = [
        _row(
            "td",
            [
                escape(title),
                *(
                    f"<strong>{percent(value)}</strong>"
                    if name is choice.aggregator
                    else percent(value)
                    for name, value in choice.validation_accuracy.items()
                ),
            ],
        )
        for title, choice in chosen
    ]
    problems = max(choice.problems for _, choice in chosen)
    table = _table(_row("th", ["method", *Aggregator]), rows)
    return (
        f"<details><summary>How steps are read: all {len(Aggregator)} ways on {problems} validation"
        f" problems, % solved</summary>{table}</details>"
    )


def _label_table(selection: Selection) -> str:
    columns: list[tuple[str, Callable[[LabelQuality], str]]] = [
        ("labels of", lambda q: escape(selection.method(q.method).title)),
        ("steps<small>really right</small>", lambda q: f"{q.steps:,}<small>{q.right:,}</small>"),
        ("AUROC", lambda q: _before_after(q.before.auroc, q.after.auroc, q.auroc_change)),
        ("squared error", lambda q: _before_after(q.before.brier, q.after.brier, q.brier_change)),
        ("right, labelled below ½", lambda q: _arrow(q.before.missed, q.after.missed)),
        ("wrong, labelled ½ or more", lambda q: _arrow(q.before.trusted, q.after.trusted)),
    ]
    rows = [_row("td", [of(quality) for _, of in columns]) for quality in selection.labels]
    return _table(_row("th", [name for name, _ in columns]), rows)


def _before_after(before: Estimate | None, after: Estimate | None, change: Estimate | None) -> str:
    """`0.946 → 0.964` with the interval of the change; one value and its own where nothing did."""
    if before is None or after is None or change is None:
        return "<small>one class only</small>"
    if change.value == 0.0:
        low_high, form, text, note = before.interval, "{:.3f}", f"{before.value:.3f}", ""
    else:
        text = f"{before.value:.3f} → {after.value:.3f}"
        low_high, form, note = change.interval, "{:+.3f}", "change "
    if low_high is None:
        return text
    low, high = (
        form.format(end).replace("-", "\N{MINUS SIGN}") for end in (low_high.low, low_high.high)
    )
    return text + _range(note + low, high)


def _range(low: str, high: str) -> str:
    return f'<small class="range">{low} to {high}</small>'


def _arrow(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _figure(title: str, caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return _section(
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
        f"<h3>Given up, and left out of everything above</h3>{_pairs(facts.quarantined)}"
        if facts.quarantined
        else ""
    )
    return (
        f'{quarantined}<div class="columns"><div><h3>Counts</h3>{_pairs(counts)}</div>'
        f"<div><h3>Versions</h3>{_pairs(facts.versions)}</div></div>"
        f"<details><summary>All {len(options)} options of this run</summary>"
        f"{_pairs(options)}</details>"
    )


def _pairs(rows: Mapping[str, str]) -> str:
    return _table(
        "", [_row("td", [escape(key), escape(value)]) for key, value in rows.items()], kind="pairs"
    )


def _table(head: str, rows: Sequence[str], kind: str = "figures") -> str:
    thead = f"<thead>{head}</thead>" if head else ""
    return (
        f'<div class="scroll"><table class="{kind}">{thead}'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
