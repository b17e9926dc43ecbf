"""What a trained PRM says of itself, and what an evaluation adds."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import ArmConfig, Correction, TrainingConfig
from pipeline.prm.encoding import EncodedSolution
from pipeline.prm.model_card import model_cards
from pipeline.prm.results import HistoryRow, selection_block, tell_selection
from pipeline.prm.training_set import TrainingSet
from pipeline.records import LabelEstimate
from tests.prm.world import make_example

RIGHT = make_example(("double", "square"), ("double", "square"))
WRONG = make_example(("double", "square"), ("negate", "square"))
SOLUTION = EncodedSolution("", (5, 9), (1,), False)
DATA = TrainingSet((RIGHT, WRONG), (SOLUTION, SOLUTION), (SOLUTION,), (1.0,), too_long=3)
ESTIMATES = [
    LabelEstimate(RIGHT.step_ids[0], 0.25, 0.5, 2, 1.0),
    LabelEstimate(WRONG.step_ids[0], 0.5, 0.5, 0, 1.0),
]
HISTORY = [
    HistoryRow(step, 0, 2.0 - step / 10, 0.5 if step == 4 else None, 0.4, 1e-3, 1.0, 1.0)
    for step in range(20)
]
CORRECTED = ArmConfig(name="prm_corrected", correction=Correction.LABELS)


def cards(
    arm: ArmConfig = CORRECTED, history: Sequence[HistoryRow] = HISTORY, **model: object
) -> dict[str, str]:
    config = TrainingConfig.model_validate(
        {"model": {"base": "some/base", "dtype": "float32", **model}}
    )
    return model_cards(config, arm, DATA, ESTIMATES, history)


def test_a_card_tells_data_labels_losses_and_config() -> None:
    card = cards()["model"]
    assert "2 programs of 1 problems (1 pass their unit tests), 2 labelled" in card
    assert "Mean 0.375 before correction, 0.500 after; 1 of 2 moved\n(by 0.250 on average)" in card
    assert "over 20 optimizer steps" in card
    assert "| training loss | 1.9500 | 0.1500 |" in card
    assert "| meta loss | 0.5000 | 0.5000 |" in card
    assert '"label_rate": 0.15' in card


def test_labels_are_held_against_the_truth_where_it_is_known() -> None:
    """One step is right, the other wrong: (0.75^2 + 0.5^2) / 2, then (0.5^2 + 0.5^2) / 2."""
    card = cards()["model"]
    assert "known truth of 2 steps: Brier score 0.4062 before, 0.2500 after" in card
    assert "2 on the wrong side of 1/2 before, 1 after." in card


def test_an_arm_that_corrects_nothing_has_no_meta_loss_and_no_options_of_corrections() -> None:
    raw = [HistoryRow(0, 0, 1.0, None, 0.4, 1e-3, 1.0, 1.0)]
    card = cards(ArmConfig(name="prm_soft"), raw)["model"]
    assert "| training loss | 1.0000 | 1.0000 |" in card
    assert "meta loss" not in card
    assert "label_rate" not in card


def test_a_card_says_how_a_model_that_was_trained_in_bfloat16_is_asked() -> None:
    assert "autocast" not in cards()["model"]
    assert "`torch.autocast(DEVICE, torch.bfloat16)`" in cards(dtype="bfloat16")["model"]


def test_adapters_of_a_base_behind_a_uri_are_loaded_onto_a_copy_of_it() -> None:
    both = cards(base="s3://bucket/base")
    assert all("base_model: s3://bucket/base\n" in card for card in both.values())
    assert "PeftModel.from_pretrained(base, FOLDER)" in both["adapter"]
    assert "AutoPeftModelForTokenClassification" in cards()["adapter"]


def test_an_evaluation_is_told_in_every_card_in_the_place_of_the_one_before(tmp_path: Path) -> None:
    for folder, card in cards().items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(card)
    tell_selection(str(tmp_path), "first")
    tell_selection(str(tmp_path), "| second |")
    for folder, card in cards().items():
        told = (tmp_path / folder / "README.md").read_text()
        before, after = card.split("How well it selects programs is not known yet: "
                                   "the evaluation of a run says it here.")  # fmt: skip
        assert told == f"{before}| second |{after}"


def test_a_card_that_says_so_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "model" / "README.md"
    path.parent.mkdir()
    path.write_text(cards()["model"])
    tell_selection(str(tmp_path), "found")
    written = path.stat().st_mtime_ns, path.stat().st_ino
    tell_selection(str(tmp_path), "found")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written
    assert not (tmp_path / "adapter").exists()


def test_a_card_without_a_place_for_it_gets_one_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "model" / "README.md"
    path.parent.mkdir()
    path.write_text("# Mine\n")
    for told in ("first", "second"):
        tell_selection(str(tmp_path), told)
        assert path.read_text() == f"# Mine\n\n{selection_block(told)}\n"
