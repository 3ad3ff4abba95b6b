"""What profiles call a locale."""

import pytest

from token_pipelines.mail.locales import candidates, exact, known


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("de", ("de",)),
        ("de_AT", ("de_at", "de")),
        ("de-AT", ("de_at", "de")),
        (" DE_at.UTF-8 ", ("de_at", "de")),
        ("de_AT@euro", ("de_at", "de")),
        ("zh-Hant-TW", ("zh_hant_tw", "zh_hant", "zh")),
        ("xx", ("xx",)),
        (None, ()),
        ("", ()),
        ("C", ()),
        ("POSIX", ()),
        ("German", ()),
        ("../../etc/passwd", ()),
        ("de/../fr", ()),
        ("de\x00", ()),
        ("de_" * 1000, ()),
    ],
)
def test_candidates_nearest_first(name: str | None, wanted: tuple[str, ...]) -> None:
    assert candidates(name) == wanted


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("de_AT", "de_AT"),
        ("de-QQ", "de"),
        ("en-US", "en_US"),
        ("xx_YY", "None"),
        ("qqq", "None"),
        ("nonsense", "None"),
        (None, "None"),
    ],
)
def test_known_or_the_nearest(name: str | None, found: str) -> None:
    assert str(known(name)) == found


@pytest.mark.parametrize(("name", "found"), [("pt_BR", "pt_BR"), ("de-QQ", "None"), ("gr", "None"), ("_base", "None")])
def test_exact_has_no_neighbours(name: str, found: str) -> None:
    assert str(exact(name)) == found
