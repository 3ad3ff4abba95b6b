"""The commands ``bounces`` and ``suppress`` as a user calls them: what they print, and what they never do."""

import codecs
import io
import json
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.ledger import ledger_at
from support.pipeline import write_config

from token_pipelines.cli.main import main

SAMPLES = Path(__file__).parents[1] / "data" / "bounces"
ADA = "ada@example.org"
BOB = "bob@example.org"


class Said(NamedTuple):
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Said]

NOT_UTF8 = (
    "Standard input is not in UTF-8 at line 2, but perhaps in Latin-1 or Windows-1252; save it as UTF-8; "
    "nothing was done."
)


@pytest.fixture
def command(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the console script with these arguments and this standard input."""
    config = write_config(tmp_path, database_url, 1)

    def run(*arguments: object, stdin: bytes = b"") -> Said:
        name, *rest = [str(argument) for argument in arguments]
        place = [name, rest.pop(0)] if name == "suppress" else [name]
        monkeypatch.setattr(sys, "argv", ["token-pipelines", *place, "--config", str(config), *rest])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "example.org" not in captured.out
        assert "Traceback" not in captured.err
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, captured.out, captured.err)

    return run


def test_suppress_from_arguments_and_standard_input(command: Command) -> None:
    """Added once, asked about, taken off; never shown."""
    assert command("suppress", "add", ADA) == (0, "1 added, 0 suppressed already.\n", "")
    assert command("suppress", "add", stdin=f"{ADA}\r\n\n {BOB} \n".encode()).out == "1 added, 1 suppressed already.\n"
    asked = command("suppress", "check", "ADA@Example.org", "carol@example.org", BOB)
    first, second, third = asked.out.splitlines()
    assert first.startswith("1: suppressed since 20")
    assert first.endswith("Z: by hand")
    assert (second, third.split(" since ")[0]) == ("2: not suppressed", "3: suppressed")
    marked = codecs.BOM_UTF8 + f"{ADA}\n".encode()
    assert command("suppress", "add", stdin=marked).out == "0 added, 1 suppressed already.\n"
    assert command("suppress", "remove", "-", stdin=f"{BOB}\ncarol@example.org\n".encode()).out == (
        "1 removed, 1 not suppressed.\n"
    )
    assert command("suppress", "remove", BOB).out == "0 removed, 1 not suppressed.\n"


def test_suppress_however_the_domain_is_spelt(command: Command) -> None:
    """The source may have it in the other form: it is one address."""
    assert command("suppress", "add", "ada@xn--bcher-kva.example").out == "1 added, 0 suppressed already.\n"
    assert command("suppress", "add", "Ada@Bücher.example").out == "0 added, 1 suppressed already.\n"
    assert command("suppress", "check", "ada@bücher.example").out.startswith("1: suppressed since ")
    assert command("suppress", "remove", "ada@bücher.example").out == "1 removed, 0 not suppressed.\n"


def test_suppress_list(command: Command) -> None:
    """Hashes, since when and why, oldest first."""
    assert command("suppress", "list") == (0, "", "")
    command("suppress", "add", ADA, "--why", "asked for it, ticket 7")
    command("suppress", "add", BOB)
    shown = command("suppress", "list").out.splitlines()
    assert [line.split("  ")[2] for line in shown] == ["asked for it, ticket 7", "by hand"]
    objects = command("suppress", "list", "--json").objects
    assert [entry["why"] for entry in objects] == ["asked for it, ticket 7", "by hand"]
    assert {len(entry["address_hash"]) for entry in objects} == {64}
    assert [line.split("  ")[0] for line in shown] == [entry["address_hash"] for entry in objects]
    [checked] = command("suppress", "check", ADA, "--json").objects
    assert checked == objects[0] | {"number": 1, "suppressed": True}


def test_suppress_json(command: Command) -> None:
    assert command("suppress", "add", ADA, ADA.upper(), BOB, "--json").objects == [
        {"version": 1, "added": 2, "already": 0}
    ]
    assert command("suppress", "remove", ADA, "x@example.org", "--json").objects == [
        {"version": 1, "removed": 1, "unknown": 1}
    ]
    [found] = command("suppress", "check", ADA, "--json").objects
    assert {**found, "address_hash": ""} == {
        "version": 1,
        "number": 1,
        "suppressed": False,
        "since": None,
        "cause": None,
        "why": None,
        "address_hash": "",
    }


@pytest.mark.parametrize("subcommand", ["add", "remove", "check"])
@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"ada@example.org\nAda <ada@example.org>\n", "Line 2 is not one plain email address; nothing was done."),
        (b"ada@example.org, bob@example.org", "Line 1 is not one plain email address; nothing was done."),
        (ADA.encode("utf-16"), "Standard input is in UTF-16; save it as UTF-8; nothing was done."),
        (ADA.encode("utf-16-le"), "Standard input is in UTF-16 or UTF-32; save it as UTF-8; nothing was done."),
        (
            b"ada@example.org\nJ\xfcrgen@example.org",
            NOT_UTF8,
        ),
        (b"\n", "No address was given; name some, or write one a line on standard input."),
    ],
)
def test_suppress_wrong_address(command: Command, subcommand: str, stdin: bytes, message: str) -> None:
    """Named by its place, not shown; all or nothing."""
    assert command("suppress", subcommand, stdin=stdin) == (2, "", f"{message}\n")
    assert command("suppress", "list").out == ""


def test_suppress_why_holds_no_address(command: Command) -> None:
    said = command("suppress", "add", ADA, "--why", f"{BOB} asked")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("--why is kept in clear, so it holds no address")


def test_suppress_with_a_byte_order_mark(command: Command) -> None:
    """Some editors put it before UTF-8."""
    assert command("suppress", "add", stdin=b"\xef\xbb\xbf" + ADA.encode()).out == "1 added, 0 suppressed already.\n"
    assert command("suppress", "remove", ADA).out == "1 removed, 0 not suppressed.\n"


def test_suppress_list_shows_cause_and_time(command: Command, database_url: str) -> None:
    """The cause in short is what --cause takes."""
    at = datetime(2026, 11, 20, 9, tzinfo=UTC)
    causes = ["a delivery report said so: 5.1.2", "the relay refused it: 5.1.10", "complaint", "ticket: 5.1.1"]
    with closing(ledger_at(database_url)) as ledger:
        ledger.migrate()
        for number, cause in enumerate(causes):
            ledger.suppressions.add([bytes([number])], at=at + number * timedelta(hours=1), cause=cause)
    shown = [line.split("  ")[1:] for line in command("suppress", "list").out.splitlines()]
    assert shown == [[f"2026-11-20T{9 + number:02}:00:00Z", cause] for number, cause in enumerate(causes)]
    objects = command("suppress", "list", "--json").objects
    assert [(one["since"], one["cause"], one["why"]) for one in objects] == [
        ("2026-11-20T09:00:00Z", "5.1.2", causes[0]),
        ("2026-11-20T10:00:00Z", "5.1.10", causes[1]),
        ("2026-11-20T11:00:00Z", "complaint", "complaint"),
        ("2026-11-20T12:00:00Z", "ticket: 5.1.1", "ticket: 5.1.1"),
    ]
    bulk = ("suppress", "remove", "--since", "2026-11-20T09:30:00Z", "--cause")
    assert command(*bulk, "5.1.2").out == "0 removed; 0 notices that had failed for this are due again.\n"
    assert command(*bulk, "5.1.1").out == "0 removed; 0 notices that had failed for this are due again.\n"
    assert command(*bulk, "5.1.10", "--json").objects == [{"version": 1, "removed": 1, "due_again": 0}]
    assert command(*bulk, "complaint").out == "1 removed; 0 notices that had failed for this are due again.\n"
    assert [one["cause"] for one in command("suppress", "list", "--json").objects] == ["5.1.2", "ticket: 5.1.1"]


@pytest.mark.parametrize(
    "options",
    [
        ["--since", "2026-11-20T09:00:00Z"],
        ["--cause", "5.1.2"],
        ["--since", "2026-11-20T09:00:00Z", "--cause", "x", ADA],
    ],
)
def test_suppress_remove_in_bulk_needs_both_and_no_address(command: Command, options: list[str]) -> None:
    said = command("suppress", "remove", *options)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("--since and --cause go together, and without addresses")


def test_suppress_remove_since_what_is_no_instant(command: Command) -> None:
    said = command("suppress", "remove", "--since", "yesterday", "--cause", "5.1.2")
    assert (said.status, said.out) == (2, "")
    assert "yesterday is not an instant" in said.err.replace("'", "").replace('"', "")


def test_suppress_many(command: Command) -> None:
    """More than one statement's parameters hold."""
    many = "\n".join(f"user{number}@example.org" for number in range(30_000)).encode()
    assert command("suppress", "add", stdin=many).out == "30,000 added, 0 suppressed already.\n"
    assert command("suppress", "remove", stdin=many).out == "30,000 removed, 0 not suppressed.\n"


def test_bounces_json(command: Command, tmp_path: Path) -> None:
    """One object alone on stdout; what led to nothing is summed up on stderr, in one line that names a few files."""
    report = SAMPLES / "postfix-refused.eml"
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(bytes(range(256)))
    said = command("bounces", report, SAMPLES / "not-a-report-vacation.eml", rubbish, "--json")
    counts = {"read": 3, "matched": 0, "recorded": 0, "suppressed": 0, "delayed": 0, "early": 0}
    more = {"complaints": 0, "unbelieved": 0, "seen": 0}
    assert said.objects == [{"version": 1, **counts, **more, "unmatched": 1, "not_reports": 2, "unreadable": 0}]
    assert said.err == (
        f"Skipped: 1 about no notice of this ledger: {report}. 2 neither a delivery report nor a complaint: "
        f"{SAMPLES / 'not-a-report-vacation.eml'}, {rubbish}.\n"
    )
    assert said.status == 0


def test_bounces_of_many_spams_is_one_line(command: Command, tmp_path: Path) -> None:
    """Cron mails what is printed. The second reading has seen them all, and prints nothing about them."""
    box = tmp_path / "box"
    for folder in ("cur", "new"):
        (box / folder).mkdir(parents=True)
    for number in range(1200):
        (box / "new" / f"{number:04}").write_text(f"Subject: offer {number}\n\nBuy.\n", encoding="utf-8")
    first, second = command("bounces", box, "--json"), command("bounces", box, "--json")
    names = ", ".join(str(box / "new" / f"{number:04}") for number in range(3))
    assert first.err == f"Skipped: 1,200 neither a delivery report nor a complaint: {names} and 1,197 more.\n"
    assert second.err == ""
    numbers = [
        (said.objects[0]["read"], said.objects[0]["not_reports"], said.objects[0]["seen"]) for said in (first, second)
    ]
    assert numbers == [(1200, 1200, 0), (1200, 0, 1200)]


def test_bounces_while_another_one_reads(command: Command, database_url: str) -> None:
    """It leaves with one sentence; cron starts the next one."""
    with closing(ledger_at(database_url)) as ledger:
        ledger.migrate()
        with ledger.read_messages.alone():
            said = command("bounces", SAMPLES / "postfix-refused.eml")
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        "Another `token-pipelines bounces` is still reading, so this one read nothing; run it again later.\n"
    )
    assert command("bounces", SAMPLES / "postfix-refused.eml").status == 0


def test_bounces_from_standard_input(command: Command) -> None:
    status, out, err = command("bounces", "-", stdin=(SAMPLES / "exim-refused.eml").read_bytes())
    assert status == 0
    assert out == (
        "1 messages read, 0 of them seen before, 0 about our notices: 0 new failures, 0 not believed, 0 complaints, "
        "0 addresses suppressed, 0 only delayed. About no notice: 1. No delivery report: 0.\n"
    )
    assert err == "Skipped: 1 about no notice of this ledger: standard input.\n"


def test_bounces_of_what_is_not_there(command: Command, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    gone, folder = command("bounces", tmp_path / "gone"), command("bounces", tmp_path / "folder")
    assert (gone.status, gone.out) == (folder.status, folder.out) == (2, "")
    assert f"{tmp_path / 'gone'} does not exist." in gone.err
    assert f"{tmp_path / 'folder'} is no maildir: it has no cur and new; name its files instead." in folder.err
    assert command("bounces").status == 2
