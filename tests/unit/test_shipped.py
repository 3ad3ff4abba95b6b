from pathlib import Path

import pytest

from token_pipelines import shipped

NAMES = ["dagster.yaml", "token_pipelines.yaml", "templates"]


@pytest.mark.parametrize("name", NAMES)
def test_path_finds_what_we_ship(name: str) -> None:
    found = shipped.path(name)
    assert found.name == name
    assert found.exists()


def test_path_in_a_wheel_looks_inside_the_package_only(tmp_path: Path) -> None:
    package = tmp_path / "token_pipelines"
    (package / "shipped_files" / "templates").mkdir(parents=True)
    (tmp_path / "dagster.yaml").touch()  # a stranger's file in site-packages
    assert shipped.path("templates", package) == package / "shipped_files" / "templates"
    with pytest.raises(FileNotFoundError, match=r"dagster\.yaml did not come with this installation"):
        shipped.path("dagster.yaml", package)


def test_path_in_a_checkout_looks_beside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "token_pipelines"
    package.mkdir()
    (tmp_path / "dagster.yaml").touch()
    assert shipped.path("dagster.yaml", package) == tmp_path / "dagster.yaml"
    with pytest.raises(FileNotFoundError):
        shipped.path("templates", package)
