"""Rendering, serialising and sending, without source and ledger, compared with Postfix's own client."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.samples import NOW, Writer, relay_config
from bench.servers import delayed, seconds_of_smtp_source, sink
from token_pipelines import config
from token_pipelines.channel import Channel
from token_pipelines.delivery.acceptance import Acceptance
from token_pipelines.delivery.connections import Connections
from token_pipelines.delivery.emails import Email
from token_pipelines.delivery.helper_pool import HelperPool
from token_pipelines.delivery.loop import SendingLoop
from token_pipelines.delivery.outbox import WRITTEN_AT_ONCE, Outbox
from token_pipelines.delivery.recording import Recorder
from token_pipelines.delivery.resolving import ResolvedNotice
from token_pipelines.ledger.settlement import Record
from token_pipelines.mail.dkim import Signer
from token_pipelines.model import Outcome, State
from token_pipelines.smtp.relay import Relay

TARGETS = {"mail.ratio_to_smtp_source": (">=", 0.30), "mail.cpu_us_per_message": ("<=", 200.0)}

ROUNDS = 5
CONNECTIONS = 16
MESSAGES = 6000
MESSAGES_TO_WRITE = 1500
ROUND_TRIP_S = 0.020
MESSAGES_OVER_THE_DELAY = 40


def figures() -> dict[str, float]:
    """Measure; every ratio is the median of ratios within one round."""
    writer = Writer()
    size = len(writer.write(1).data)
    with sink() as port, TemporaryDirectory() as folder:
        signing = Writer(_signer(Path(folder)))
        theirs, ours, unsigned, signed = [], [], [], []
        for _ in range(ROUNDS):
            theirs.append(MESSAGES / seconds_of_smtp_source(port, sessions=CONNECTIONS, messages=MESSAGES, size=size))
            seconds, cpu_seconds = _at_once(port, writer)
            ours.append(MESSAGES / seconds)
            unsigned.append(cpu_seconds / MESSAGES * 1e6)
            signed.append(_at_once(port, signing)[1] / MESSAGES * 1e6)
        serialise_only = _us_of(writer.write)
    return {
        "mail.ratio_to_smtp_source": median(one / other for one, other in zip(ours, theirs, strict=True)),
        "mail.per_second": median(ours),
        "mail.smtp_source_per_second": median(theirs),
        # The least disturbed round: other work on the machine can only add CPU time.
        "mail.cpu_us_per_message": min(unsigned),
        "mail.cpu_us_per_message_median": median(unsigned),
        "mail.cpu_us_per_message_signed": min(signed),
        "mail.cpu_us_render_and_serialise": serialise_only,
        "mail.message_bytes": size,
        **_over_a_delay(writer),
    }


def _at_once(port: int, writer: Writer) -> tuple[float, float]:
    """Send all messages as a run does; returns seconds, and this process' CPU seconds (user and kernel)."""
    began, began_cpu = time.perf_counter(), time.process_time()
    send(Relay(relay_config(port)), writer, messages=MESSAGES, connections=CONNECTIONS)
    return time.perf_counter() - began, time.process_time() - began_cpu


def send(relay: Relay, writer: Writer, *, messages: int, connections: int) -> None:
    """The product's sending loop, without source and ledger."""
    recorder = _NoLedger()
    channel = cast("Channel", relay)  # all that connections need of one is to connect
    with HelperPool(connections) as helpers, Connections(channel, helpers, count=connections, pauses=()) as opened:
        outbox = _Numbered(writer, messages)
        acceptance = Acceptance(relay.explain)
        SendingLoop(opened, cast("Outbox", outbox), cast("Recorder", recorder), acceptance, patience=0.0).run()
    if recorder.sent != messages:
        msg = f"{recorder.sent} instead of {messages} sent"
        raise RuntimeError(msg)


class _Numbered:
    """In the place of the outbox: emails by number, written ahead as there."""

    seconds_left = 0.0

    def __init__(self, writer: Writer, messages: int) -> None:
        self._writer = writer
        self._numbers = iter(range(messages))
        self._written: deque[Email] = deque()
        self._is_over = False

    def __len__(self) -> int:
        return len(self._written)

    @property
    def is_exhausted(self) -> bool:
        return self._is_over and not self._written

    @property
    def can_fill(self) -> bool:
        return not self._is_over and len(self._written) <= WRITTEN_AT_ONCE // 2

    def fill(self, _is_stopping: Callable[[], bool]) -> None:
        if self.can_fill:
            numbers = list(islice(self._numbers, WRITTEN_AT_ONCE))
            self._is_over = len(numbers) < WRITTEN_AT_ONCE
            self._written.extend(map(self._email, numbers))

    def _email(self, number: int) -> Email:
        notice = SimpleNamespace(notice=SimpleNamespace(notice_id=str(number)))
        envelope = self._writer.write(number)
        return Email(resolved=cast("ResolvedNotice", notice), read_at=NOW, at=NOW, written_at=NOW, envelope=envelope)

    def take(self) -> Email | None:
        return self._written.popleft() if self._written else None

    def fresh(self, email: Email) -> Email:
        return email

    def follow(self, _outcome: Outcome) -> bool:
        return False

    def put_back(self, email: Email) -> None:
        self._written.appendleft(email)


class _NoLedger:
    """In the place of what takes outcomes into the ledger."""

    is_lost = has_records = False

    def __init__(self) -> None:
        self.sent = 0

    def keep(self, email: Email, outcome: Outcome) -> Record:
        self.sent += outcome.state is State.SENT
        return Record(notice_id=email.notice_id, outcome=outcome, at=NOW, address_hash=b"")

    def settle(self, marks: Mapping[str, datetime]) -> set[str]:
        return set(marks)


def _us_of(work: Callable[[int], object]) -> float:
    began = time.process_time()
    for number in range(MESSAGES_TO_WRITE):
        work(number)
    return (time.process_time() - began) / MESSAGES_TO_WRITE * 1e6


def _over_a_delay(writer: Writer) -> dict[str, float]:
    """Messages per second over one connection with 20 ms of round trip, to a server with and without PIPELINING."""
    found = {}
    for name, pipelining in (("with", True), ("without", False)):
        with sink(pipelining=pipelining) as port, delayed(port, round_trip=ROUND_TRIP_S) as far:
            began = time.perf_counter()
            send(Relay(relay_config(far)), writer, messages=MESSAGES_OVER_THE_DELAY, connections=1)
            found[f"mail.per_second_at_20_ms_{name}_pipelining"] = MESSAGES_OVER_THE_DELAY / (
                time.perf_counter() - began
            )
    return found


def _signer(folder: Path) -> Signer:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Signer(config.Dkim(domain="example.org", selector="bench", key_file=folder / "key.pem"))
