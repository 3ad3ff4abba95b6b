"""What comes back, from a sent notice to a failed one: real registry, ledger and relay, and reports as they are."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.pipeline import PipelineRunner, Registry
from support.smtpd import Action, Script, Smtpd

from token_pipelines.bounce_address import tag
from token_pipelines.feedback.bounces.reading import BounceCounts, read_bounces
from token_pipelines.ledger.bounces import READER
from token_pipelines.model import Mode

SAMPLES = Path(__file__).parents[1] / "data" / "bounces"
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
DAY = timedelta(days=1)
ADA = "ada@customer.example.net"
PLACEHOLDER = "1f0c2b8e-5a55-4c0b-9d0e-6a2f4f2f7d11"

ONE_READ = BounceCounts(read=1)
RECORDED = BounceCounts(read=1, matched=1, recorded=1)
SUPPRESSED = BounceCounts(read=1, matched=1, recorded=1, suppressed=1)
UNBELIEVED = BounceCounts(read=1, matched=1, unbelieved=1)
KNOWN = BounceCounts(read=1, matched=1)
SEEN = BounceCounts(read=1, seen=1)
NEIGHBOURS = 2


class House:
    """A pipeline that has told Ada of one token, which expires in a week, and a place for reports to lie.

    The same run has told some neighbours too, so that what comes back to Ada is believed.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        relay: Script | None = None,
        address: str = ADA,
        neighbours: int = NEIGHBOURS,
    ) -> None:
        self.registry = Registry(url)
        self.now = NOW
        self.ada = self.registry.user("ada", email=address)
        self.token = self.registry.token(self.ada, expires_at=NOW + 7 * DAY)
        self.add_neighbours(neighbours)
        self._folder = folder
        self.told: list[str] = []
        with Smtpd(script=relay) as server:
            self.pipeline = PipelineRunner(folder, url, server.port)
            self.pipeline.run(NOW)
        self.registry.execute("UPDATE api_tokens SET revoked = true WHERE user_id <> %s", self.ada)
        self.ledger = self.pipeline.parts(NOW).ledger
        self.find_notice()

    def add_neighbours(self, number: int) -> None:
        """People who are told by the next run, and after it no more."""
        for _ in range(number):
            [(count,)] = self.registry.execute("SELECT count(*) FROM users")
            neighbour = self.registry.user(f"n{count}", email=f"n{count}@d{count}.example")
            self.registry.token(neighbour, expires_at=self.now + 7 * DAY)

    def find_notice(self) -> None:
        """Ada's newest one."""
        query = "SELECT notice_id FROM token_pipelines.notices WHERE recipient_id = %s ORDER BY planned_at"
        self.notice = [str(row[0]) for row in self.registry.execute(query, str(self.ada))][-1]

    def change(self, assignments: str, *values: object) -> None:
        """Change Ada's notice."""
        self.registry.execute(
            f"UPDATE token_pipelines.notices SET {assignments} WHERE notice_id = %s",  # noqa: S608 -- a test's own text
            *values,
            self.notice,
        )

    def report(self, sample: str = "postfix-refused", *, tag: str | None = None, **replaced: str) -> Path:
        """A report, with some of its text replaced; sent to the notice's own address, or to one with ``tag``."""
        text = (SAMPLES / f"{sample}.eml").read_text(encoding="utf-8")
        tag = self.ledger.bounces.tag(self.notice) if tag is None else tag
        text = text.replace(f"bounces+{PLACEHOLDER}", f"bounces+{tag}").replace(PLACEHOLDER, self.notice)
        for old, new in replaced.items():
            text = text.replace({"status": "5.1.1", "address": ADA, "notice": self.notice}[old], new)
        file = self._folder / f"{sample}.eml"
        file.write_text(text, encoding="utf-8")
        return file

    def read(self, *files: Path) -> BounceCounts:
        return read_bounces(self.ledger, files, clock=lambda: self.now, on_warning=self.told.append)

    def next_day(self, days: int = 1, *, neighbours: int = 0) -> list[str]:
        """Run this number of days later; the result is who gets an email, without the neighbours."""
        self.now += days * DAY
        self.add_neighbours(neighbours)
        with Smtpd() as server:
            self.pipeline = PipelineRunner(self._folder, self.registry.url, server.port)
            self.pipeline._runs = self.now.toordinal()  # noqa: SLF001 -- so that no two runs have one id
            self.pipeline.run(self.now)
        self.registry.execute("UPDATE api_tokens SET revoked = true WHERE user_id <> %s", self.ada)
        return [one.recipient for one in server.accepted if not re.fullmatch(r"n\d+@d\d+\.example", one.recipient)]

    def suppressed(self, address: str = ADA) -> bool:
        return bool(self.ledger.suppressions.among([self.ledger.hash_address(address)]))

    def states(self) -> dict[str, int]:
        """How many of Ada's notices the ledger holds in each state."""
        query = "SELECT state, count(*) FROM token_pipelines.notices WHERE recipient_id = %s GROUP BY state"
        return dict(self.registry.execute(query, str(self.ada)))

    def steps(self) -> list[tuple[str, str]]:
        """What was planned for Ada's token and not taken back: tier and state, earliest threshold first."""
        query = (
            "SELECT tokens.tier, state FROM token_pipelines.notice_tokens AS tokens"
            " JOIN token_pipelines.notices USING (notice_id)"
            " WHERE NOT released AND notices.recipient_id = %s ORDER BY threshold"
        )
        return [(tier, state) for tier, state in self.registry.execute(query, str(self.ada))]

    def close(self) -> None:
        self.ledger.close()


@pytest.fixture
def house(tmp_path: Path, registry_url: str) -> Iterator[House]:
    made = House(tmp_path, registry_url)
    assert made.states() == {"sent": 1}
    yield made
    made.close()


@pytest.mark.parametrize(
    "sample", ["postfix-refused", "exim-refused", "sendmail-refused", "gmail-no-such-user", "ses-no-such-user"]
)
def test_bounce_turns_sent_into_failed_and_suppresses(house: House, sample: str) -> None:
    """Once: the second reading has seen it."""
    file = house.report(sample)
    assert [house.read(file), house.read(file), house.read(file, file)] == [SUPPRESSED, SEEN, BounceCounts(2, seen=2)]
    assert house.states() == {"failed": 1}
    assert house.suppressed()
    assert house.told == []
    [entry] = house.ledger.history.entries(recipient_id=str(house.ada))
    assert (entry["state"], entry["sent_at"]) == ("failed", None)
    tries = entry["attempts"]
    assert isinstance(tries, list)
    assert [one["stage"] for one in tries] == ["dot", "bounce"]
    bounce = tries[1]
    assert (bounce["run_id"], bounce["code"], bounce["enhanced"], bounce["queue_id"]) == (READER, 550, "5.1.1", None)
    assert bounce["at"] == "2026-11-23T09:00:00Z"
    assert bounce["reply"].startswith("5.1.1")


def test_bounce_keeps_no_address(house: House) -> None:
    for sample in ("postfix-refused", "office365-no-such-user", "exim-refused"):
        house.read(house.report(sample))
    tables = house.registry.execute(
        "SELECT row_to_json(attempts)::text FROM token_pipelines.attempts"
        " UNION ALL SELECT row_to_json(suppressions)::text FROM token_pipelines.suppressions"
    )
    assert tables
    assert not [row for (row,) in tables if "@" in row]


def test_bounce_carries_the_hash_that_the_notice_was_sent_to(house: House) -> None:
    house.read(house.report(address="somebody.else@example.org"))
    query = "SELECT address_hash FROM token_pipelines.attempts WHERE notice_id = %s ORDER BY attempt_id"
    hashes = house.registry.execute(query, house.notice)
    sent_to = house.ledger.hash_address(ADA)
    assert [bytes(one) for (one,) in hashes] == [sent_to, sent_to]


@pytest.mark.parametrize("status", ["5.1.8", "5.2.2", "4.4.1"])
def test_bounce_of_another_kind_suppresses_nobody(house: House, status: str) -> None:
    """Given up, so nobody was told; but the address may be well."""
    assert house.read(house.report(status=status)) == RECORDED
    assert not house.suppressed()
    assert house.states() == {"failed": 1}


def test_bounce_delayed_is_only_counted(house: House) -> None:
    assert house.read(house.report("postfix-delayed")) == BounceCounts(read=1, matched=1, delayed=1)
    assert house.states() == {"sent": 1}


def test_bounce_after_delays_ran_out(house: House) -> None:
    files = [house.report("postfix-delayed"), house.report("postfix-gave-up")]
    assert house.read(*files) == BounceCounts(read=2, matched=2, delayed=1, recorded=1)
    assert house.states() == {"failed": 1}


def test_bounce_of_an_address_behind_the_address(house: House) -> None:
    """The address is a list's, and a member is gone; or the report is forged to silence a stranger. Neither is dead."""
    assert house.read(house.report(address="member@example.com")) == RECORDED
    assert not house.suppressed()
    assert not house.suppressed("member@example.com")


def test_bounce_that_names_no_address(house: House) -> None:
    """Then it can only be the one that we wrote to."""
    file = house.report()
    file.write_text(re.sub(r"(?m)^Final-Recipient: .*\n", "", file.read_text(encoding="utf-8")), encoding="utf-8")
    assert house.read(file) == SUPPRESSED


@pytest.mark.parametrize(
    ("source", "report"),
    [
        ("Ada@Customer.Example.NET", ADA),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
    ],
)
def test_bounce_names_the_address_in_another_form(tmp_path: Path, registry_url: str, source: str, report: str) -> None:
    house = House(tmp_path, registry_url, address=source)
    assert house.read(house.report(address=report)) == SUPPRESSED
    assert house.suppressed(source)
    house.close()


def test_bounce_read_again_does_not_overrule_a_person(house: House) -> None:
    """The operator has taken the address off the list; the report still lies in the mailbox."""
    file = house.report()
    house.read(file)
    ledger = house.ledger
    assert ledger.suppressions.remove([ledger.hash_address(ADA)]) == 1
    assert house.read(file) == SEEN
    house.registry.execute("DELETE FROM token_pipelines.read_messages")  # it does not remember for ever
    assert house.read(file) == KNOWN
    assert not house.suppressed()


# Whose trouble it is


def reports_about_everybody(house: House, folder: Path, status: str = "5.1.2") -> list[Path]:
    """A report about each notice that the ledger takes for sent, Ada's first, as of a relay whose resolver fails."""
    query = (
        "SELECT notice_id, email FROM token_pipelines.notices JOIN emails ON user_id = recipient_id::int"
        " WHERE state = 'sent' ORDER BY recipient_id::int"
    )
    text = (SAMPLES / "postfix-refused.eml").read_text(encoding="utf-8").replace("5.1.1", status)
    files = []
    for number, (notice_id, address) in enumerate(house.registry.execute(query)):
        files.append(folder / f"{house.now.date()}-{number}")
        written = text.replace(f"+{PLACEHOLDER}", f"+{house.ledger.bounces.tag(str(notice_id))}")
        written = written.replace(PLACEHOLDER, str(notice_id)).replace(ADA, address)
        files[-1].write_text(f"X-Read: {house.now}\n{written}", encoding="utf-8")
    return files


def all_states(house: House) -> dict[str, int]:
    return dict(house.registry.execute("SELECT state, count(*) FROM token_pipelines.notices GROUP BY state"))


def test_all_came_back_is_not_believed_and_sent_again(tmp_path: Path, registry_url: str) -> None:
    """A relay whose resolver failed returns what it had accepted. Mended, it delivers to everybody."""
    house = House(tmp_path, registry_url, neighbours=300)
    files = reports_about_everybody(house, tmp_path)
    assert house.read(*files) == BounceCounts(read=301, matched=301, unbelieved=301)
    assert all_states(house) == {"deferred": 301}
    assert [*house.ledger.suppressions.listed()] == []
    assert len(house.told) == 1
    assert house.told[0] == (
        "Not believed: 301 failures, because most of what the same run sent came back (301 of the 301 emails of run "
        "run-1). Nobody is suppressed for them, and the next run sends their notices again; look at the relay's log, "
        "and fix what it says."
    )
    assert house.read(*files) == BounceCounts(read=301, seen=301)
    assert len(house.told) == 1
    assert house.next_day() == [ADA]
    house.close()


@pytest.mark.parametrize(("neighbours", "expected"), [(0, UNBELIEVED), (1, SUPPRESSED), (2, SUPPRESSED)])
def test_one_came_back_of_few(tmp_path: Path, registry_url: str, neighbours: int, expected: BounceCounts) -> None:
    house = House(tmp_path, registry_url, neighbours=neighbours)
    assert house.read(house.report()) == expected
    assert house.suppressed() == (expected == SUPPRESSED)
    house.close()


def test_reports_that_arrive_one_by_one_end_as_if_they_had_come_together(tmp_path: Path, registry_url: str) -> None:
    """The first of many look like a few, and are believed; that is undone when the others come."""
    house = House(tmp_path, registry_url, neighbours=9)
    files = reports_about_everybody(house, tmp_path)
    counts = [house.read(*files[:3]), house.read(*files[3:5]), house.read(*files[5:])]
    assert [(one.recorded, one.suppressed, one.unbelieved) for one in counts] == [(3, 3, 0), (2, 2, 0), (0, 0, 10)]
    assert all_states(house) == {"deferred": 10}
    assert [*house.ledger.suppressions.listed()] == []
    assert house.told[-1].endswith(" 5 of them had been believed by an earlier reading; that is undone.")
    house.close()


def test_what_was_not_believed_is_when_the_run_goes_on(tmp_path: Path, registry_url: str) -> None:
    """Read while the run had told nobody else yet."""
    house = House(tmp_path, registry_url, neighbours=1)
    house.registry.execute("DELETE FROM token_pipelines.attempts WHERE notice_id <> %s", house.notice)
    assert house.read(house.report()) == UNBELIEVED
    house.registry.execute(
        "INSERT INTO token_pipelines.attempts (notice_id, at, run_id, state, stage, code)"
        " SELECT notice_id, sent_at, 'run-1', 'sent', 'dot', 250 FROM token_pipelines.notices WHERE notice_id <> %s",
        house.notice,
    )
    assert house.read() == BounceCounts(recorded=1, suppressed=1)
    assert house.states() == {"failed": 1}
    house.close()


def test_came_back_on_three_days_is_believed_when_others_get_their_mail(tmp_path: Path, registry_url: str) -> None:
    """Alone in each run, and dead: the other runs show that mail gets through."""
    house = House(tmp_path, registry_url, neighbours=0)
    seen = []
    for days in (0, 1, 2):
        if days:
            assert house.next_day() == [ADA]
        house.report().replace(tmp_path / f"{days}.eml")
        text = (tmp_path / f"{days}.eml").read_text(encoding="utf-8")
        (tmp_path / f"{days}.eml").write_text(f"X-Day: {days}\n{text}", encoding="utf-8")
        seen.append(house.read(tmp_path / f"{days}.eml"))
        if days == 0:
            house.registry.execute(
                "INSERT INTO token_pipelines.notices"
                " (notice_id, day, mode, tier, recipient_id, state, message_id, planned_by, planned_at, sent_at)"
                " VALUES (gen_random_uuid(), %s, 'live', 'week', '9', 'sent', '<x>', 'r', %s, %s)",
                *(NOW.date(), NOW, NOW + DAY / 24),
            )
    assert seen == [UNBELIEVED, UNBELIEVED, SUPPRESSED]
    assert house.states() == {"failed": 1}
    house.close()


def test_came_back_on_many_days_is_not_believed_while_nobody_gets_mail(tmp_path: Path, registry_url: str) -> None:
    house = House(tmp_path, registry_url, neighbours=3)
    house.registry.execute("UPDATE api_tokens SET revoked = false")
    for _ in range(4):
        counts = house.read(*reports_about_everybody(house, tmp_path))
        assert (counts.recorded, counts.unbelieved) == (0, 4)
        with Smtpd() as server:
            house.now += DAY
            house.pipeline = PipelineRunner(tmp_path, registry_url, server.port)
            house.pipeline._runs = house.now.toordinal()  # noqa: SLF001 -- so that no two runs have one id
            house.pipeline.run(house.now)
        assert len(server.accepted) == 4
    assert [*house.ledger.suppressions.listed()] == []
    house.close()


def test_removing_in_bulk_makes_the_notices_due_again(tmp_path: Path, registry_url: str) -> None:
    """A relay was wrong about two people, and others had their mail, so it was believed. The operator knows better."""
    house = House(tmp_path, registry_url, neighbours=3)
    assert house.read(*reports_about_everybody(house, tmp_path)[:2]).suppressed == 2
    assert house.ledger.suppressions.remove_since(NOW, code="5.1.1") == (0, 0)
    assert house.ledger.suppressions.remove_since(NOW + DAY, code="5.1.2") == (0, 0)
    assert all_states(house) == {"failed": 2, "sent": 2}
    assert house.ledger.suppressions.remove_since(NOW, code="5.1.2") == (2, 2)
    assert all_states(house) == {"deferred": 2, "sent": 2}
    assert house.read() == BounceCounts()
    house.registry.execute("UPDATE api_tokens SET revoked = false")
    assert house.next_day() == [ADA]
    assert all_states(house) == {"sent": 4}
    house.close()


# Complaints


COMPLAINED = BounceCounts(read=1, matched=1, complaints=1, suppressed=1)


def test_complaint_suppresses_and_leaves_the_notice_sent(house: House) -> None:
    """It has arrived: the person is told, and does not want to be told again."""
    file = house.report("complaint-abuse")
    assert [house.read(file), house.read(file)] == [COMPLAINED, SEEN]
    assert house.states() == {"sent": 1}
    assert [(entry.cause, entry.code) for entry in house.ledger.suppressions.listed()] == [("complaint", "complaint")]
    assert house.next_day(6) == []


def test_complaint_read_again_does_not_overrule_a_person(house: House) -> None:
    file = house.report("complaint-abuse")
    house.read(file)
    house.ledger.suppressions.remove([house.ledger.hash_address(ADA)])
    house.registry.execute("DELETE FROM token_pipelines.read_messages")  # it does not remember for ever
    assert house.read(file) == BounceCounts(read=1, matched=1, complaints=1)
    assert not house.suppressed()


def test_complaint_of_a_member_of_a_list(house: House) -> None:
    """Nobody complains for the other members."""
    file = house.report("complaint-abuse")
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("Version: 1", "Version: 1\nOriginal-Rcpt-To: member@list.example"), encoding="utf-8")
    assert house.read(file) == BounceCounts(read=1, matched=1, complaints=1)
    assert [*house.ledger.suppressions.listed()] == []


@pytest.mark.parametrize("recipient", ["ada", "", "unknown"])
def test_bounce_that_names_no_address_but_somebody(house: House, recipient: str) -> None:
    file = house.report()
    text = re.sub(
        r"(?m)^Final-Recipient: .*$", f"Final-Recipient: rfc822; {recipient}", file.read_text(encoding="utf-8")
    )
    file.write_text(text, encoding="utf-8")
    assert house.read(file) == RECORDED
    assert not house.suppressed()


# Being told again


def test_told_again_not_at_the_same_address(house: House) -> None:
    """Neither the day after, nor when the list forgets the address: this threshold is used up at it."""
    house.read(house.report())
    ledger = house.ledger
    ledger.suppressions.remove([ledger.hash_address(ADA)])
    assert house.next_day() == []
    assert house.steps() == [("week", "failed")]


def test_told_again_at_another_address(house: House) -> None:
    house.read(house.report())
    house.registry.execute("UPDATE emails SET email = 'ada@example.com' WHERE user_id = %s", house.ada)
    assert house.next_day() == ["ada@example.com"]
    assert house.steps() == [("week", "sent")]
    assert house.next_day() == []


def test_told_again_at_another_address_which_bounces_too(house: House) -> None:
    """The second notice's report fails the second notice, and an old report about the first changes nothing."""
    first = house.report()
    house.read(first)
    house.registry.execute("UPDATE emails SET email = 'ada@example.com' WHERE user_id = %s", house.ada)
    house.next_day(neighbours=NEIGHBOURS)
    house.find_notice()
    second = house.report("exim-refused", address="ada@example.com")
    assert house.read(first, second) == BounceCounts(read=2, matched=1, recorded=1, suppressed=1, seen=1)
    assert house.states() == {"failed": 2}
    assert house.next_day() == []


def test_told_again_at_the_next_step_of_urgency(house: House) -> None:
    """A full mailbox is tried again a day before the expiry; a dead address is not."""
    house.read(house.report(status="5.2.2"))
    assert house.next_day(6) == [ADA]


# Which notice, and in which state


@pytest.mark.parametrize("sample", sorted(path.stem for path in SAMPLES.glob("not-a-report-*.eml")))
def test_not_a_report(house: House, sample: str) -> None:
    file = house.report(sample)
    assert house.read(file) == BounceCounts(read=1, not_reports=1)
    assert house.told == [f"Skipped: 1 neither a delivery report nor a complaint: {file}."]


def test_report_about_no_notice_of_ours(house: House) -> None:
    file = house.report(tag="", notice="00000000-5a55-4c0b-9d0e-6a2f4f2f7d11")
    assert house.read(file) == BounceCounts(read=1, unmatched=1)
    assert house.told == [f"Skipped: 1 about no notice of this ledger: {file}."]
    assert house.states() == {"sent": 1}


def test_report_with_ids_of_strangers_too(house: House) -> None:
    """The first id that is ours counts, wherever it stands."""
    file = house.report()
    text = file.read_text(encoding="utf-8")
    file.write_text("X-Original-To: x-00000000-5a55-4c0b-9d0e-6a2f4f2f7d11@example.org\n" + text, encoding="utf-8")
    assert house.read(file) == SUPPRESSED


def test_bounce_of_a_notice_in_doubt(tmp_path: Path, registry_url: str) -> None:
    """No answer came, yet the message had been taken: the report ends the doubt, and it is not sent again."""

    def relay(stage: str, argument: str) -> Action | None:
        return Action(drop="after") if (stage, argument) == ("dot", ADA) else None

    house = House(tmp_path, registry_url, relay=relay)
    assert house.states() == {"unknown": 1}
    assert house.read(house.report()) == SUPPRESSED
    assert house.states() == {"failed": 1}
    assert house.next_day() == []
    house.close()


def test_bounce_of_a_notice_whose_sender_was_killed(house: House) -> None:
    """Nobody knows which address it went to: the one that the report names stands for it, and nobody is suppressed."""
    house.registry.execute("DELETE FROM token_pipelines.attempts WHERE notice_id = %s", house.notice)
    house.change("state = 'unknown', sent_at = NULL")
    assert house.read(house.report()) == RECORDED
    assert house.next_day() == []
    house.registry.execute("UPDATE emails SET email = 'ada@example.com' WHERE user_id = %s", house.ada)
    assert house.next_day() == ["ada@example.com"]


@pytest.mark.parametrize("state", ["claimed", "sending"])
def test_bounce_of_a_notice_in_a_runs_hands(house: House, state: str) -> None:
    """It came back before the run could write down that it was sent: to be read again."""
    house.change("sent_at = NULL, claimed_by = 'run', claimed_from = 'planned', state = %s", state)
    file = house.report()
    counts = house.read(file)
    assert counts == BounceCounts(read=1, matched=1, early=1)
    assert not counts.complete
    meaning = "about a notice that a run is sending right now; read them again later"
    assert house.told == [f"Skipped: 1 {meaning}: {file} (notice {house.notice})."]
    house.change("state = 'sent', sent_at = now(), claimed_by = NULL, claimed_from = NULL")
    assert house.read(file) == SUPPRESSED


@pytest.mark.parametrize("state", ["planned", "deferred", "withdrawn", "failed"])
def test_bounce_of_a_notice_that_was_not_sent(house: House, state: str) -> None:
    """Forged, or a mistake: nothing of it can have come back."""
    house.change("sent_at = NULL, state = %s", state)
    assert house.read(house.report()) == KNOWN
    assert house.states() == {state: 1}
    assert not house.suppressed()


# How much came back


@pytest.mark.parametrize(("since", "expected"), [(0, (3 + NEIGHBOURS, 1)), (1, (0, 0))])
def test_count_bounced(house: House, since: int, expected: tuple[int, int]) -> None:
    """Of what the relay took; what it refused at once, and what still waits, is neither."""
    another = (
        "INSERT INTO token_pipelines.notices"
        " (notice_id, day, mode, tier, recipient_id, state, message_id, planned_by, planned_at, sent_at)"
        " VALUES (gen_random_uuid(), %s, 'live', 'week', '9', %s, '<x>', 'r', now(), %s)"
    )
    for state in ("sent", "sent", "failed", "planned", "unknown"):
        house.registry.execute(another, NOW.date(), state, NOW if state == "sent" else None)
    house.read(house.report())
    bounces = house.ledger.bounces
    assert bounces.count(mode=Mode.LIVE, since=NOW.date() + since * DAY) == expected
    assert bounces.count(mode=Mode.DRY_RUN, since=NOW.date() + since * DAY) == expected
    assert bounces.count(mode=Mode.REDIRECT, since=NOW.date()) == (0, 0)


def test_maildir_of_many(house: House, tmp_path: Path) -> None:
    """A mailbox as it is: reports, spam, replies and rubbish."""
    for folder in ("cur", "new", "tmp"):
        (tmp_path / "box" / folder).mkdir(parents=True)
    for number, sample in enumerate(_all_samples()):
        house.report(sample).rename(tmp_path / "box" / ("cur", "new")[number % 2] / f"{number}.host")
    (tmp_path / "box" / "new" / "rubbish").write_bytes(bytes(range(256)) * 100)
    counts = house.read(tmp_path / "box")
    samples = len(_all_samples())
    others = len([*SAMPLES.glob("not-a-report-*.eml")])
    assert (counts.read, counts.matched, counts.not_reports) == (samples + 1, samples - others, others + 1)
    assert (counts.recorded, counts.delayed, counts.complaints, counts.unmatched) == (1, 2, 1, 0)
    assert counts.complete
    assert len(house.told) == 1


def _all_samples() -> Sequence[str]:
    return sorted(path.stem for path in SAMPLES.glob("*.eml"))


# Reports that prove nothing


FORGED = {
    "by its Message-ID": "",
    "to the address of older versions": PLACEHOLDER,
    "with a tag of another ledger": tag(PLACEHOLDER, b"another ledger's key"),
}


@pytest.mark.parametrize("sent_to", FORGED.values(), ids=FORGED)
def test_forged_report_suppresses_nobody_and_the_person_is_told_once_more(house: House, sent_to: str) -> None:
    """Whoever has seen the Message-ID can write it; so it may cost one email more, and never the warning."""
    file = house.report(tag=sent_to)
    assert [house.read(file), house.read(file)] == [RECORDED, SEEN]
    assert not house.suppressed()
    assert house.states() == {"failed": 1}
    assert house.next_day() == [ADA]
    assert house.steps() == [("week", "sent")]
    assert house.next_day() == []


def test_forged_report_about_the_second_notice_too(house: House) -> None:
    """Once more, not for ever: else a dead address behind an old mail system would get an email every day."""
    house.read(house.report(tag=""))
    assert house.next_day(neighbours=NEIGHBOURS) == [ADA]
    house.find_notice()
    assert house.read(house.report(tag="")) == RECORDED
    assert house.next_day() == []
    assert house.steps() == [("week", "failed")]
    assert not house.suppressed()
    assert house.next_day(4) == [ADA]  # the tier of the last day


def test_forged_report_does_not_hide_a_real_one(house: House) -> None:
    """Somebody was quicker than the mail system: its report still says that the address is dead."""
    house.read(house.report(tag=""))
    assert house.read(house.report()) == BounceCounts(read=1, matched=1, suppressed=1)
    assert house.next_day() == []


def test_forged_complaint_suppresses_nobody(house: House) -> None:
    file = house.report("complaint-abuse", tag=PLACEHOLDER)
    assert house.read(file) == BounceCounts(read=1, matched=1, complaints=1)
    assert not house.suppressed()


def test_complaint_that_a_provider_sends_elsewhere(house: House) -> None:
    """All its complaints go to one address; the sender's address, with its tag, is in a field."""
    file = house.report("complaint-abuse", tag="")
    text, own = file.read_text(encoding="utf-8"), house.ledger.bounces.tag(house.notice)
    fields = f"Version: 1\nOriginal-Mail-From: <bounces+{own}@example.org>"
    file.write_text(text.replace("Version: 1", fields), encoding="utf-8")
    assert house.read(file) == COMPLAINED


def test_forged_report_with_the_tag_of_another_notice(house: House) -> None:
    """A recipient knows their own tag. It proves their own notice, whatever else the report names."""
    victim = house.notice
    eve = house.registry.user("eve", email="eve@example.com")
    house.registry.token(eve, expires_at=NOW + 7 * DAY)
    assert house.next_day(neighbours=NEIGHBOURS) == ["eve@example.com"]
    query = "SELECT notice_id FROM token_pipelines.notices WHERE recipient_id = %s"
    [own] = [str(row[0]) for row in house.registry.execute(query, str(eve))]
    assert house.read(house.report(tag=house.ledger.bounces.tag(own))) == RECORDED
    assert not house.suppressed()
    assert house.registry.execute(query.replace("notice_id F", "state F"), str(eve)) == [("failed",)]
    states = house.registry.execute("SELECT state FROM token_pipelines.notices WHERE notice_id = %s", victim)
    assert states == [("sent",)]


def test_tag_in_the_returned_message_proves_nothing(house: House) -> None:
    """A forward of the whole email carries its Return-Path; the report itself went elsewhere."""
    file = house.report()
    own = house.ledger.bounces.tag(house.notice)
    head, _, rest = file.read_text(encoding="utf-8").partition("\n\n")
    file.write_text(head.replace(own, "someone") + "\n\n" + rest, encoding="utf-8")
    assert own in rest
    assert house.read(file) == RECORDED
    assert not house.suppressed()
