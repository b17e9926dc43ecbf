"""A run lays its problems once, in parts of one role, and tells what it left out."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.groundwork import lay_problems
from pipeline.plan import InputMissing, Plan, make_plan
from pipeline.progress import Progress
from pipeline.records import Role
from pipeline.settings import load_config

LONG = "Given an array of integers, print the sum of all elements that are larger than their index."


class Listener:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, title: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def row(problem_id: str, released_on: str, statement: str = "") -> dict:
    return {
        "problem_id": problem_id,
        "statement": statement or f"Print {problem_id}.",
        "difficulty": "easy",
        "released_on": released_on,
        "tests": [{"stdin": "", "expected": "1"}],
    }


def planned(place: Path, **problems: object) -> Plan:
    config = {
        "root": str(place / "store"),
        "problems": {"kind": "jsonl", "paths": [str(place / "problems")]} | problems,
        "policy": {"kind": "vllm", "model": "none"},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return make_plan(load_config(place / "config.yaml"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rows = [
        row("train", "2024-01-01"),
        row("twin", "2024-01-01", LONG + " Hurry."),
        row("test", "2025-03-01", LONG),
        row("train", "2024-01-01"),
        row("bad", "soon"),
    ]
    (tmp_path / "problems").mkdir()
    text = "".join(f"{json.dumps(each)}\n" for each in rows)
    (tmp_path / "problems" / "p.jsonl").write_text(text)
    return tmp_path


def test_what_is_left_out_is_told_and_kept_beside_the_problems(place: Path) -> None:
    plan, listener = planned(place, skip_bad_rows=True), Listener()
    assert lay_problems(plan, listener) == {0: Role.TRAIN, 1: Role.TEST}
    bad, repeated, near = listener.notes
    assert bad.startswith("left out: 1 row cannot be read as problems")
    assert "row 4: train is the same problem as train in" in repeated
    assert near.startswith("left out: train problem twin dropped")
    note = plan.problems.note()
    assert note is not None
    assert note["shaped_by"]["left_out"] == listener.notes

    again = Listener()
    assert lay_problems(plan, again) == {0: Role.TRAIN, 1: Role.TEST}
    assert again.notes == []


def test_another_file_in_a_folder_makes_other_problems(place: Path) -> None:
    before = planned(place).problems.fingerprint
    (place / "problems" / "more.jsonl").write_text(json.dumps(row("x", "2024-01-01")))
    assert planned(place).problems.fingerprint != before


def test_filters_are_part_of_what_shapes_the_problems(place: Path) -> None:
    everything = planned(place).problems.fingerprint
    assert planned(place, before="2024-08-01").problems.fingerprint != everything


def test_a_folder_that_is_not_there_is_told(place: Path) -> None:
    with pytest.raises(InputMissing, match="/nowhere"):
        planned(place, paths=["/nowhere/problems.jsonl"])
