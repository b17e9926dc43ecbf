import dataclasses
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from pipeline.config import ArmConfig, Correction, EvaluationConfig, Targets
from pipeline.evaluation.card import selection_section
from pipeline.evaluation.evaluate import KnownLabels, ScoredSplit, evaluate
from pipeline.evaluation.page import report_page
from pipeline.evaluation.paper import paper_table
from pipeline.evaluation.plots import best_of_n_plot, colours, label_quality_plot, training_plot
from pipeline.evaluation.report import write_report
from pipeline.evaluation.run_facts import RunFacts, TrainingPoint
from pipeline.evaluation.selection import Candidate
from pipeline.evaluation.table import label_table, percent_with_interval, selection_table
from pipeline.records import Example, LabelEstimate, Role
from sandbox.protocol import Isolation

ARMS = [
    ArmConfig(name="orm", targets=Targets.FINAL),
    ArmConfig(name="prm_soft"),
    ArmConfig(name="prm_hard", targets=Targets.HARD),
    ArmConfig(name="prm_corrected", correction=Correction.LABELS),
    ArmConfig(name="prm_true", targets=Targets.TRUE),
]
CONFIG = EvaluationConfig(bootstrap=300)


def split(problems, seed):
    rng = np.random.default_rng(seed)
    candidates = [
        Candidate(f"p{p}", f"s{p}-{k}", f"{2 + p % 3} functions", truth[-1], truth)
        for p in range(problems)
        for k in range(4)
        for truth in [tuple(bool(r) for r in np.cumprod(rng.random(3) < 0.8))]
    ]
    scores = {
        arm.name: {
            c.solution_id: tuple(0.2 + 0.5 * t + 0.3 * rng.random() for t in c.step_truth or ())
            for c in candidates
        }
        for arm in ARMS
    }
    return ScoredSplit(candidates, scores)


def known_labels():
    examples = [
        Example(
            f"t{i}", f"q{i}", Role.TRAIN, "2", "", "", (1, 2), (f"{i}-0", f"{i}-1"),
            (1, 1), (4, 4), (i % 2 == 0, False), False,
        )
        for i in range(20)
    ]  # fmt: skip
    estimates = [LabelEstimate(f"{i}-0", 0.5, 0.9 if i % 3 else 0.2, 4) for i in range(20)]
    return KnownLabels(examples, {"prm_soft": estimates, "prm_corrected": estimates})


def facts(verdicts, name="demo"):
    return RunFacts(
        name=name,
        config=CONFIG,
        counts={"rollouts": 12345},
        verdicts=verdicts,
        versions={"ray": "2.60.0"},
    )


HISTORY = [
    TrainingPoint("prm_corrected", step, 1 / step, meta_loss=2 / step, mean_label=0.4)
    for step in range(1, 50)
] + [TrainingPoint("orm", step, 1 / step) for step in range(1, 50)]
DOCKER = facts({Isolation.DOCKER: 100})


@pytest.fixture(scope="module")
def selection():
    return evaluate(ARMS, split(40, 0), split(20, 1), known_labels(), CONFIG)


@pytest.fixture(scope="module")
def written(tmp_path_factory, selection):
    directory = tmp_path_factory.mktemp("runs") / "deep" / "report"
    return write_report(directory, selection, DOCKER, HISTORY)


class Outline(HTMLParser):
    """Every address that a page asks for, and whether its tags close in order."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_report_is_a_json_four_pictures_and_a_page(written):
    assert sorted(path.name for path in written.page.parent.iterdir()) == [
        "best_of_n.png", "label_quality.png", "reliability.png", "report.html", "selection.json",
        "training.png",
    ]  # fmt: skip
    assert len(written.pictures) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written.pictures)


def test_the_page_is_well_formed_and_needs_nothing_from_outside(written):
    page = written.page.read_text()
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.addresses) == 4
    assert all(address.startswith("data:image/png;base64,") for address in outline.addresses)
    assert "http" not in page


def test_the_json_holds_the_selection_and_the_run(written):
    stored = json.loads(written.selection.read_text())
    assert stored["problems"] == 40
    assert stored["methods"][0]["method"] == "pass_at_1"
    assert stored["labels"][0]["method"] == "prm_soft"
    assert stored["run"]["verdicts"] == {"docker": 100}
    assert stored["run"]["versions"] == {"ray": "2.60.0"}
    assert stored["run"]["config"]["bootstrap"] == 300


def test_the_same_result_gives_the_same_bytes(tmp_path, written, selection):
    again = write_report(tmp_path, selection, DOCKER, HISTORY)
    assert again.page.read_bytes() == written.page.read_bytes()
    assert again.selection.read_bytes() == written.selection.read_bytes()


def test_the_page_says_what_is_within_noise_and_what_was_run(written, selection):
    page = written.page.read_text()
    for text in ("within noise", "12,345", "2.60.0", "validation", "bootstrap", "isolation docker"):
        assert text in page
    for row in selection.methods:
        assert row.title in page


def test_unsafe_verdicts_are_a_loud_box_and_isolated_ones_are_not(selection):
    unsafe = facts({Isolation.NONE: 7, Isolation.DOCKER: 3})
    assert "7 of 10 verdicts" in report_page(selection, unsafe, [])
    assert "No isolation" not in report_page(selection, DOCKER, [])


LIVECODEBENCH = dataclasses.replace(DOCKER, benchmark="livecodebench")


@pytest.fixture(scope="module")
def by_difficulty():
    """20 problems, half of them easy, on which only corrected labels find the right program."""
    candidates = [
        Candidate(f"p{p}", f"p{p}-{right}", "easy" if p % 2 else "hard", right)
        for p in range(20)
        for right in (True, False)
    ]
    scores = {
        arm.name: {
            c.solution_id: ((0.9,) if c.passed == (arm.name == "prm_corrected") else (0.1,))
            for c in candidates
        }
        for arm in ARMS
    }
    return evaluate(ARMS, ScoredSplit(candidates, scores), config=CONFIG)


def test_the_papers_table_stands_beside_ours_where_the_problems_are_livecodebench(by_difficulty):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(paper_table(by_difficulty))
    text = " ".join(console.export_text().split())
    for method, figures in {
        "o4-mini-high": ("100.0 / 50.0", "89.7 / -", "57.4 / 50.0", "77.1 / 50.0"),
        "ORM": ("100.0 / 0.0", "89.7 / -", "62.3 / 0.0", "79.4 / 0.0"),
        "PRM-CoF": ("100.0 / 0.0", "92.3 / -", "62.3 / 0.0", "80.2 / 0.0"),
        "DreamPRM-Code": ("100.0 / 100.0", "92.3 / -", "63.9 / 100.0", "80.9 / 100.0"),
    }.items():
        assert " ".join(figures) in text.split(f" {method} / ")[1]
    page = report_page(by_difficulty, LIVECODEBENCH, [])
    assert "92.3 / -" in page
    assert "131 problems" in page
    assert "131 problems" not in report_page(by_difficulty, DOCKER, [])


def test_every_aggregator_is_shown_on_validation_and_on_test_apart(selection):
    page = report_page(selection, DOCKER, [])
    validation, test = page.split("How steps are read: all 5 ways on 20 validation")[1].split(
        "The same on the 40 test problems"
    )
    for text in (validation, test):
        assert "<th>log_odds</th>" in text
    row = selection.method("prm_soft")
    assert f"{100 * row.by_aggregator['mean'].value:.1f}" in test
    assert list(selection.method("orm").by_aggregator) == ["last"]


def test_a_name_with_markup_in_it_is_shown_and_not_obeyed(selection):
    page = report_page(selection, facts({}, name="<script>alert(1)</script>"), [])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_without_truth_scores_or_history_the_report_still_stands(tmp_path):
    candidates = [Candidate("p", "a", "easy", True), Candidate("p", "b", "easy", False)]
    bare = evaluate([], ScoredSplit(candidates, {}), config=CONFIG)
    files = write_report(tmp_path, bare, DOCKER)
    assert [path.name for path in files.pictures] == ["best_of_n.png"]
    assert Outline(files.page.read_text()).open == []
    with pytest.raises(ValueError, match="truth"):
        label_quality_plot(bare)
    with pytest.raises(ValueError, match="history"):
        training_plot(bare, [])


def test_a_single_candidate_per_problem_still_draws():
    candidates = [Candidate(f"p{i}", f"s{i}", "easy", i % 2 == 0) for i in range(4)]
    figure = best_of_n_plot(evaluate([], ScoredSplit(candidates, {}), config=CONFIG))
    figure.savefig(io.BytesIO())


def test_methods_have_one_colour_each(selection):
    chosen = colours(row.method for row in selection.methods)
    assert set(chosen) == {row.method for row in selection.methods}
    assert len(set(chosen.values())) == len(chosen)


def test_the_terminal_table_has_a_row_per_method_and_a_column_per_difficulty(selection):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(selection_table(selection))
    text = console.export_text()
    table, differences = text.split("Differences in points")
    places = [table.index(f"\n {row.title} ") for row in selection.methods]
    assert places == sorted(places)
    assert len(places) == 7
    assert "…" not in text
    for part in ("by number of functions", "n=14", "n=13", "overall"):
        assert part in table
    assert "PRM + corrected labels against PRM soft: " in differences


def test_the_label_table_shows_what_correction_changed_and_what_it_left(selection):
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(label_table(selection))
    rows = {line.split("  ")[0].strip(): line for line in console.export_text().splitlines()}
    quality = next(row for row in selection.labels if row.method == "prm_corrected")
    assert f"{quality.before.ece:.3f} → {quality.after.ece:.3f}" in rows["PRM + corrected labels"]
    assert len(rows["PRM + corrected labels"].split("→")) == 4


def test_problems_that_were_given_up_are_named_with_the_reason(selection):
    given_up = {"p7 in solutions": "its worker died 2 times"}
    named = dataclasses.replace(facts({Isolation.DOCKER: 1}), quarantined=given_up)
    page = report_page(selection, named, [])
    assert "p7 in solutions" in page
    assert "its worker died 2 times" in page
    assert "Given up" not in report_page(selection, facts({Isolation.DOCKER: 1}), [])


def test_a_model_card_has_the_selection_table_with_its_own_row_in_bold(selection):
    section = selection_section(selection, "prm_corrected", "demo")
    assert "Best-of-4 on 40 test problems in the run `demo`, % solved" in section
    rows = {line.split("|")[1].strip(): line for line in section.splitlines() if "|" in line}
    assert rows[""].count("|") == 1 + 3 + len(selection.problems_by_difficulty)
    assert all(row.count("|") == rows[""].count("|") for row in rows.values())
    mine = selection.method("prm_corrected")
    assert rows[f"**{mine.title}**"].split("|")[2].strip() == (
        f"**{percent_with_interval(mine.overall)}**"
    )
    assert len(rows) == len(selection.methods) + 2  # and the head
    assert sum("**" in row for row in rows.values()) == 1
    assert "Its labels against the known truth of 20 steps: AUROC" in section
    assert "known truth" not in selection_section(selection, "orm", "demo")
