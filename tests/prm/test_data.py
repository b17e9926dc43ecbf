"""The Example shards that a person names are found, wherever they are."""

from pathlib import Path

import pytest

from pipeline.prm.data import TrainingDataError, example_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("part-00001.arrow", "part-00000.arrow", "stage.json", "survey.json"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_stands_for_its_parts_in_order_local_or_behind_a_uri(
    folder: Path, scheme: str
) -> None:
    named = f"{scheme}{folder}"
    shards = [f"{named}/part-00000.arrow", f"{named}/part-00001.arrow"]
    assert example_files([f"{named}/"]) == shards
    assert example_files([shards[1], named]) == [shards[1], *shards]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_without_parts_is_named(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(TrainingDataError, match=f"{tmp_path}: holds no part"):
        example_files([f"{scheme}{tmp_path}"])
