"""The gallery and its samples."""

import re
import shutil
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
import yaml
from support.samples import NOW, all_samples, shipped_config

from token_pipelines import shipped
from token_pipelines.cli import main as cli
from token_pipelines.config import Config, load
from token_pipelines.errors import ConfigError, TemplateError
from token_pipelines.mail.rendering import Renderer
from token_pipelines.operations.preview import gallery
from token_pipelines.operations.preview.samples import render_all

KINDS = {"one", "five", "many", "mixed", "crowded", "bare", "hostile", "long", "rtl"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an operator's folder: a config whose source is the demo's, and templates."""
    shutil.copyfile(shipped.path("token_pipelines.yaml"), tmp_path / "token_pipelines.yaml")
    shutil.copytree(shipped.path("templates"), tmp_path / "templates")
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Give the command line, in this process."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["token-pipelines", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code))

    return call


def test_samples_are_every_tier_kind_and_language() -> None:
    config = shipped_config()
    wanted = {(tier.name, kind, locale) for tier in config.tiers for kind in KINDS for locale in ("", "de")}
    assert {(sample.tier, sample.kind, sample.locale) for sample in all_samples()} == wanted
    assert len({sample.key for sample in all_samples()}) == len(wanted)


def test_samples_speak_as_their_tier_would() -> None:
    """The times are those of the tier, and an expired token is in the after tier only."""
    subjects = {sample.tier: sample.content.subject for sample in all_samples() if sample.key.endswith("-one-default")}
    assert subjects == {
        "expired": "Your Example Registry API token has expired",
        "day": "Your Example Registry API token expires in 1 day and 5 hours",
        "week": "Your Example Registry API token expires in 7 days",
        "month": "Your Example Registry API token expires in 30 days",
    }


def test_samples_of_a_share_say_the_tokens_own_time_left(load_tiers: Callable[..., Config]) -> None:
    """They are 90 days old: a tenth of 100 days is left. A hundredth of a lifetime would be less than a day."""
    config = load_tiers({"name": "soon", "remaining": "10%"}, {"name": "last", "remaining": "0.5%"})
    samples = render_all(config, Renderer(Path(shipped.path("templates")), config.email), now=NOW)
    found = [sample for sample in samples if sample.key.endswith("-one-default")]
    assert {sample.tier: sample.content.subject for sample in found} == {
        "soon": "Your Example Registry API token expires in 10 days",
        "last": "Your Example Registry API token expires in 1 day and 5 hours",
    }
    assert not any("60 days" in sample.content.text + sample.content.html for sample in found)


@pytest.fixture
def load_tiers(folder: Path) -> Callable[..., Config]:
    """Load the shipped config with tiers of shares, each of 60 days at most."""

    def loaded(*tiers: dict[str, str]) -> Config:
        path = folder / "token_pipelines.yaml"
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        data["tiers"] = [tier | {"at_most": "60d"} for tier in tiers]
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return load(path)

    return loaded


def test_samples_mixed_holds_every_less_urgent_tier() -> None:
    counts = {sample.tier: len(sample.tokens) for sample in all_samples() if sample.kind == "mixed"}
    assert counts == {"expired": 4, "day": 3, "week": 2, "month": 1}


def test_samples_crowded_shows_the_living_first() -> None:
    """Of 60 that have expired and one of each tier before: these, and those that expired last."""
    (sample,) = [sample for sample in all_samples() if sample.key == "expired-crowded-default"]
    names = re.findall(r"^  (\S+)$", sample.content.text, re.MULTILINE)
    assert names == [*(f"build-{number:03d}" for number in range(46, -1, -1)), "deploy-1", "deploy-2", "deploy-3"]
    assert "... and 13 more" in sample.content.text


def test_write_gallery(tmp_path: Path) -> None:
    """One page a sample with four frames, the subject and the text; an index with a link to each."""
    index, count = gallery.write(shipped_config(), tmp_path / "new" / "folder", now=NOW)
    assert index == tmp_path / "new" / "folder" / "index.html"
    links = re.findall(r"<td>.*?</td>", index.read_text(encoding="utf-8"))
    pages = re.findall(r'<a href="([^"]+)">', "".join(links))
    assert len(pages) == len(set(pages)) == count == 72
    for page in pages:
        html = (index.parent / page).read_text(encoding="utf-8")
        assert re.findall(r'<iframe class="(\w+) (\w+)"', html) == [
            ("phone", "light"),
            ("phone", "dark"),
            ("desktop", "light"),
            ("desktop", "dark"),
        ]
        for link in re.findall(r'href="([^"#]+)"', re.sub(r'srcdoc="[^"]*"', "", html)):
            assert (index.parent / link).is_file(), link


def test_write_page_shows_the_email_itself(tmp_path: Path) -> None:
    index, _ = gallery.write(shipped_config(), tmp_path, now=NOW)
    (sample,) = [sample for sample in all_samples() if sample.key == "expired-hostile-default"]
    page = (index.parent / f"{sample.key}.html").read_text(encoding="utf-8")
    frames = [unescape(frame) for frame in re.findall(r'srcdoc="([^"]*)"', page)]
    assert len(frames) == 4
    assert frames[0].replace("\n", "") == without_unsubscribe(sample.content.html)
    text = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert unescape(text[0]).partition("\n----")[0] == sample.content.text.partition("\n----")[0]


def without_unsubscribe(html: str) -> str:
    return re.sub(r'<br><a href="[^"]*/unsubscribe/[^"]*"[^>]*>[^<]*</a>', "", html).replace("\n", "")


def test_write_nothing_hostile_reaches_the_page(tmp_path: Path) -> None:
    """A name is text in the frame, in the text part and in the page around them; nothing can be fetched or run."""
    index, _ = gallery.write(shipped_config(), tmp_path, now=NOW)
    for page in index.parent.glob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert "<script" not in html
        assert "<img" not in html
        assert "default-src 'none'" in html
        assert all('sandbox=""' in frame for frame in re.findall(r"<iframe[^>]*", re.sub(r'srcdoc="[^"]*"', "", html)))


def test_write_service_with_markup(tmp_path: Path) -> None:
    config = shipped_config()
    email = config.email.model_copy(update={"service": "<b>R&D</b> {0}"})
    index, _ = gallery.write(config.model_copy(update={"email": email}), tmp_path, now=NOW)
    assert "<h1>Emails of &lt;b&gt;R&amp;D&lt;/b&gt; {0}</h1>" in index.read_text(encoding="utf-8")


def test_write_faulty_template(folder: Path) -> None:
    (folder / "templates/token-expired/de/body.txt").write_text("{{ nonsense }}")
    with pytest.raises(TemplateError, match="uses nonsense, which is not a variable of emails"):
        gallery.write(config_in(folder), folder / "out", now=NOW)
    assert not (folder / "out").exists()


def test_write_folder_that_is_a_file(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"token_pipelines\.yaml cannot be written \(.*\); name another folder with --out\.$"
    ):
        gallery.write(config_in(folder), folder / "token_pipelines.yaml", now=NOW)


def config_in(folder: Path) -> Config:
    return load(folder / "token_pipelines.yaml")


def test_command_writes_beside_the_config(
    folder: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the demo's config too, and without a database or a relay."""
    assert run("preview", "--config", folder / "token_pipelines.yaml") == 0
    index = folder / ".token_pipelines" / "preview" / "index.html"
    assert capsys.readouterr().out == f"72 emails; look at them at {index.as_uri()}\n"
    assert index.is_file()
    assert not (folder / ".token_pipelines" / "demo").exists()


def test_command_out(folder: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("preview", "--config", folder / "token_pipelines.yaml", "--out", folder / "a b") == 0
    assert capsys.readouterr().out.endswith("/a%20b/index.html\n")
    assert (folder / "a b" / "index.html").is_file()


@pytest.mark.parametrize("address", ["", "nobody", "a@b@c", "a@example.org, b@example.org"])
def test_command_send_to_no_address(
    folder: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str], address: str
) -> None:
    """Said before anything is written, and without repeating it."""
    assert run("preview", "--config", folder / "token_pipelines.yaml", "--send-to", address) == 2
    assert capsys.readouterr() == ("", "--send-to needs one address, like you@example.org.\n")
    assert not (folder / ".token_pipelines").exists()


def test_command_faulty_template(folder: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "templates/_base/layout.html").write_text("{{ oops }}")
    assert run("preview", "--config", folder / "token_pipelines.yaml") == 2
    assert re.fullmatch(
        r".*layout\.html line 1 uses oops, which is not a variable of emails; use one of .*\n", capsys.readouterr().err
    )
