"""The benchmark's stand-ins fit the sending loop. What it measures is measured by `make bench`, not here."""

from support.smtpd import Smtpd

from bench.mail import send
from bench.samples import Writer, relay_config
from token_pipelines.smtp.relay import Relay


def test_the_bench_sends_over_the_sending_loop() -> None:
    with Smtpd() as relay:
        send(Relay(relay_config(relay.port)), Writer(), messages=80, connections=2)
    assert len({accepted.recipient for accepted in relay.accepted}) == 80
