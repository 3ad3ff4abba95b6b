"""Rendering, serialising and sending, without source and ledger, compared with Postfix's own client."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.samples import Writer, relay_config
from bench.servers import delayed, seconds_of_smtp_source, sink
from token_pipelines import config
from token_pipelines.delivery.tier import WRITTEN_AT_ONCE
from token_pipelines.delivery.workers import senders
from token_pipelines.envelope import Envelope
from token_pipelines.mail.dkim import Signer
from token_pipelines.model import State
from token_pipelines.smtp.transport import Connection, Relay

TARGETS = {"mail.ratio_to_smtp_source": (">=", 0.30), "mail.cpu_us_per_message": ("<=", 200.0)}

ROUNDS = 5
CONNECTIONS = 4
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
    relay = Relay(relay_config(port, connections=CONNECTIONS))
    began, began_cpu = time.perf_counter(), time.process_time()
    with senders(CONNECTIONS) as threads:
        work = [
            threads.submit(_send, relay, writer, range(first, MESSAGES, CONNECTIONS)) for first in range(CONNECTIONS)
        ]
    for one in work:
        one.result()
    return time.perf_counter() - began, time.process_time() - began_cpu


def _send(relay: Relay, writer: Writer, numbers: range) -> None:
    with relay.connect() as connection:
        for start in range(0, len(numbers), WRITTEN_AT_ONCE):
            _send_all(connection, [writer.write(number) for number in numbers[start : start + WRITTEN_AT_ONCE]])


def _send_all(connection: Connection, envelopes: list[Envelope]) -> None:
    for envelope, following in zip(envelopes, [*envelopes[1:], None], strict=True):
        outcome = connection.send(envelope, following=following)
        if outcome.state is not State.SENT:
            msg = f"not sent: {outcome}"
            raise RuntimeError(msg)


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
            relay = Relay(relay_config(far))
            with relay.connect() as connection:
                began = time.perf_counter()
                _send_all(connection, [writer.write(number) for number in range(MESSAGES_OVER_THE_DELAY)])
                found[f"mail.per_second_at_20_ms_{name}_pipelining"] = MESSAGES_OVER_THE_DELAY / (
                    time.perf_counter() - began
                )
    return found


def _signer(folder: Path) -> Signer:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Signer(config.Dkim(domain="example.org", selector="bench", key_file=Path("key.pem")), folder)
