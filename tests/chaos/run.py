"""The chaos itself: a registry and a ledger in Postgres, a moody relay, and workers that are killed at random moments.

What is random comes from the seed; what the machine makes of it does not, so two runs of a seed are alike, not equal.
"""

import hashlib
import multiprocessing
import os
import quopri
import random
import re
import shutil
import signal
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Literal

import psycopg
import trustme
import yaml
from chaos import registry
from chaos.relay import Mood
from chaos.verdict import Arrival, AttemptRow, Crash, Evidence, Freeze, NoticeRow, Verdict, judge
from chaos.worker import Order, work
from support.smtpd import Accepted, Smtpd

from token_pipelines import shipped
from token_pipelines.demo.environment import overridden
from token_pipelines.demo.postgres import EmbeddedPostgres

CONNECTIONS: Final = 4
USER, PASSWORD = "pipeline", "correct horse"
POLL: Final = 0.004
FULL_PERCENT: Final = 1
GREY_PERCENT: Final = 10
RIVAL_PERCENT: Final = 35  # of the time between two blows there are two workers
EARLY_PERCENT: Final = 30  # of the kills hit a worker soon after its start, wherever it is
EARLY_SECONDS: Final = 1.5
FROZEN_SECONDS: Final = 2.5
LATEST_BLOW: Final = 0.9  # of the recipients told: what comes later might find nobody at work
MAX_ATTEMPTS: Final = 3
CLEAN_RUNS: Final = 8
FAULTS: Final = 3
IDLE_RUNS: Final = 15  # in a row without a message accepted: then something is wrong, and waiting does not help
NO_DATABASE: Final = "cannot be reached"
TESTS: Final = Path(__file__).parents[1]
SERVER_SETTINGS: Final = {"max_connections": "100", "shared_buffers": "32MB", "max_wal_senders": "0",
                          "wal_level": "minimal", "autovacuum": "off"}  # fmt: skip

_FORKS: Final = multiprocessing.get_context("forkserver")
_TOKEN: Final = re.compile(rb"token\d+n\d+x")
_MESSAGE_ID: Final = re.compile(rb"^Message-ID: (\S+)", re.MULTILINE | re.IGNORECASE)


Kind = Literal["kill", "early kill", "freeze", "postgres"]


class ChaosError(Exception):
    """The harness cannot go on: the product made no progress, or a server did not come back."""


class _Idle(Exception):  # noqa: N818 -- an event, handled in ``_Storm.rage``
    """Run after run sends nothing, though there should be more to send: the verdict will say why."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to do, and how much of it."""

    recipients: int = 3000
    kills: int = 20
    postgres_restarts: int = 2
    freezes: int = 1
    seed: int = 1
    rate: int = 200  # messages a second: a run must last long enough to be killed in its middle
    sabotage: str | None = None
    seconds: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """The verdict, and what went before it."""

    settings: Settings
    verdict: Verdict
    evidence: Evidence
    kills: Counter[str]
    runs: int
    seconds: float
    tally: Counter[str]
    folder: Path

    def as_json(self) -> dict[str, object]:
        """Plain values; no address in them."""
        return {
            "settings": asdict(self.settings),
            "verdict": self.verdict.as_json(),
            "kills": self.kills,
            "runs": self.runs,
            "seconds": round(self.seconds, 1),
            "relay": dict(sorted(self.tally.items())),
        }


@dataclass(frozen=True, kw_only=True)
class Blow:
    """Something that happens after a number of accepted messages and a pause."""

    kind: Kind
    after: int
    pause: float
    rival: bool


@dataclass(kw_only=True)
class Worker:
    """A process that sends."""

    order: Order
    process: BaseProcess
    started: float = field(default_factory=time.monotonic)


def unleash(settings: Settings, *, folder: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Result:
    """Do it all. Leaves the workers' logs in ``folder``; ends every process that it started.

    Raises:
        ChaosError: if it does not come to an end in time.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_fork_server())
        postgres = EmbeddedPostgres(folder / "postgres", settings=SERVER_SETTINGS)
        stack.enter_context(postgres)
        stack.callback(shutil.rmtree, postgres.home, ignore_errors=True)
        storm = _Storm(settings, folder, postgres, say)
        stack.callback(storm.end)
        return storm.rage(stack)


class _Storm:
    """One run of the chaos."""

    def __init__(
        self, settings: Settings, folder: Path, postgres: EmbeddedPostgres, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._postgres = postgres
        self._say = say
        self._rng = random.Random(settings.seed)  # noqa: S311 -- chance from a seed, no secret
        self._began = time.monotonic()
        self._workers: list[Worker] = []
        self._wanted = 1
        self._runs = 0
        self._idle_runs = 0
        self._accepted_before = 0
        self._faults: list[str] = []
        self._crashes: list[Crash] = []
        self._freezes: list[Freeze] = []
        self._kills: Counter[str] = Counter()
        self._ended = folder / "ended"
        self._ended.touch()

    def rage(self, stack: ExitStack) -> Result:
        """Set up, strike, come to rest, judge."""
        settings = self._settings
        self._postgres.create_database("registry")
        self._postgres.create_database("ledger")
        now = datetime.now(UTC)
        population = registry.fill(self._postgres.url("registry"), settings.recipients, self._rng, now)
        full = self._rng.sample(sorted(population.due), settings.recipients * FULL_PERCENT // 100)
        grey = self._rng.sample(sorted(population.due), settings.recipients * GREY_PERCENT // 100)
        own = random.Random(self._rng.random())  # noqa: S311 -- as above
        self._mood = Mood(own, full=full, grey=grey)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self._folder / "ca.pem"))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        relay = stack.enter_context(Smtpd(script=self._mood, starttls=tls, credentials={USER: PASSWORD}))
        self._write_config(relay.port)
        try:
            for blow in self._blows():
                self._strike(blow)
        except _Idle:
            self._faults.append(f"{IDLE_RUNS} runs in a row have sent nothing, at {self._mood.accepted} accepted")
        self._come_to_rest()
        told_by_now = self._mood.accepted
        self._clean_run()
        evidence = Evidence(
            population=population,
            refused=frozenset(self._mood.refused),
            connections=CONNECTIONS,
            arrivals=[_arrival(message) for message in relay.accepted],
            notices=list(self._notices()),
            attempts=list(self._attempts()),
            kills=self._kills["kill"] + self._kills["early kill"],
            freezes=self._freezes,
            crashes=self._crashes,
            faults=self._faults,
            after_the_end=self._mood.accepted - told_by_now,
        )
        return Result(
            settings=settings,
            verdict=judge(evidence),
            evidence=evidence,
            kills=self._kills,
            runs=self._runs,
            seconds=time.monotonic() - self._began,
            tally=self._mood.tally,
            folder=self._folder,
        )

    def end(self) -> None:
        """End what was started."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()

    # What happens when

    def _blows(self) -> list[Blow]:
        """All blows in their order, spread over the whole work."""
        settings = self._settings
        kinds: list[Kind] = []
        kinds += ["early kill" if self._rng.randrange(100) < EARLY_PERCENT else "kill" for _ in range(settings.kills)]
        kinds += ["postgres" for _ in range(settings.postgres_restarts)]
        kinds += ["freeze" for _ in range(settings.freezes)]
        self._rng.shuffle(kinds)
        last = int(settings.recipients * LATEST_BLOW)
        moments = sorted(self._rng.randint(1, last) for _ in kinds)
        return [
            Blow(
                kind=kind,
                after=moment,
                pause=self._rng.uniform(0, EARLY_SECONDS if kind == "early kill" else 0.2),
                rival=self._rng.randrange(100) < RIVAL_PERCENT,
            )
            for kind, moment in zip(kinds, moments, strict=True)
        ]

    def _strike(self, blow: Blow) -> None:
        self._wanted = 2 if blow.rival else 1
        self._tend_until(lambda: self._mood.accepted >= blow.after and self._workers)
        if blow.kind == "early kill":
            worker = self._start()
            while time.monotonic() < worker.started + blow.pause and worker.process.is_alive():
                self._tend()
        else:
            pause = time.monotonic() + blow.pause
            self._tend_until(lambda: time.monotonic() > pause and self._workers)
        match blow.kind:
            case "postgres":
                self._crash_postgres()
            case "freeze":
                self._freeze(self._rng.choice(self._workers))
            case _:
                self._kill(worker if blow.kind == "early kill" else None)
        self._kills[blow.kind] += 1
        self._say(f"{self._mood.accepted:5} accepted: {blow.kind}, {len(self._workers)} left at work")

    def _kill(self, worker: Worker | None) -> None:
        """SIGKILL to this one, or to any if it has ended by itself. Of half of the deaths only the lease tells."""
        while True:
            if worker is None or worker not in self._workers:
                self._tend_until(lambda: self._workers)
                worker = self._rng.choice(self._workers)
            worker.process.kill()
            worker.process.join()
            if worker.process.exitcode == -signal.SIGKILL:
                break
            self._bury()
        self._workers.remove(worker)
        if self._rng.random() < 0.5:
            self._know_ended(worker)
        else:
            self._lapse(worker)

    def _freeze(self, worker: Worker) -> None:
        """A worker is presumed dead while it lives: it stops, its lease expires, another takes over, it goes on."""
        _signal(worker, signal.SIGSTOP)
        self._lapse(worker)
        until = time.monotonic() + FROZEN_SECONDS
        self._wanted = 2
        self._tend_until(lambda: time.monotonic() > until)
        self._freezes.append(Freeze(run_id=worker.order.run_id, thawed_at=datetime.now(UTC)))
        _signal(worker, signal.SIGCONT)

    def _crash_postgres(self) -> None:
        at = datetime.now(UTC)
        self._postgres.kill()
        self._crashes.append(Crash(at=at, senders=len(self._workers)))
        until = time.monotonic() + self._rng.uniform(0, 1.5)
        self._tend_until(lambda: time.monotonic() > until)
        self._postgres.start()

    def _lapse(self, worker: Worker) -> None:
        """Make the last heartbeat an old one."""
        with suppress(psycopg.errors.UndefinedTable), psycopg.connect(self._postgres.url("ledger")) as connection:
            aged = "UPDATE token_pipelines.runs SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE run_id = %s"
            connection.execute(aged, [worker.order.run_id])

    def _know_ended(self, worker: Worker) -> None:
        with self._ended.open("a") as file:
            file.write(f"{worker.order.run_id}\n")

    # Workers

    def _start(self) -> Worker:
        self._runs += 1
        run_id = f"run-{self._runs:03}"
        order = Order(
            run_id=run_id,
            config=self._folder / "config.yaml",
            ended=self._ended,
            log=self._folder / f"{run_id}.log",
            password=PASSWORD,
            sabotage=self._settings.sabotage,
        )
        process = _FORKS.Process(target=work, args=(order,), name=run_id)
        process.start()
        worker = Worker(order=order, process=process)
        self._workers.append(worker)
        return worker

    def _tend(self) -> None:
        """Replace those that have ended; wait a moment."""
        self._bury()
        while len(self._workers) < self._wanted:
            self._start()
        time.sleep(POLL)
        if time.monotonic() > self._began + self._settings.seconds:
            msg = f"no end within {self._settings.seconds} s: {self._mood.accepted} accepted, see {self._folder}"
            raise ChaosError(msg)

    def _bury(self) -> None:
        for worker in list(self._workers):
            if not worker.process.is_alive():
                self._workers.remove(worker)
                self._know_ended(worker)
                self._look_for_faults(worker)
                if self._mood.accepted > self._accepted_before:
                    self._idle_runs = 0
                elif NO_DATABASE not in worker.order.log.read_text(errors="replace"):  # it ends at once, many a second
                    self._idle_runs += 1
                self._accepted_before = self._mood.accepted
                if len(self._faults) > FAULTS:
                    last = worker.order.log.read_text(errors="replace")[-800:]
                    msg = f"{len(self._faults)} runs ended by a fault; the last said: {last}"
                    raise ChaosError(msg)
                if self._idle_runs == IDLE_RUNS:
                    raise _Idle

    def _tend_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._tend()

    def _look_for_faults(self, worker: Worker) -> None:
        """A worker may stop for a trouble that the product names. A traceback is a fault, and so is an address."""
        text = worker.order.log.read_text(errors="replace")
        if worker.process.exitcode not in {0, 1} or "fault of ours" in text or "Traceback" in text:
            self._faults.append(f"{worker.order.run_id}: status {worker.process.exitcode}, see {worker.order.log}")
        if registry.DOMAIN in text:
            self._faults.append(f"{worker.order.run_id}: an address in {worker.order.log}")

    def _come_to_rest(self) -> None:
        """The relay is well again and nobody is killed: run until nothing waits."""
        self._mood.calm = True
        self._wanted = 0
        self._tend_until(lambda: not self._workers)
        for _ in range(CLEAN_RUNS):
            self._clean_run()
            if not self._waiting():
                return
        self._say(f"{self._waiting()} notices still wait after {CLEAN_RUNS} clean runs")

    def _clean_run(self) -> None:
        self._start()
        self._tend_until(lambda: not self._workers)

    # The ledger

    def _waiting(self) -> int:
        query = """SELECT count(*) FROM token_pipelines.notices
                   WHERE state IN ('planned', 'claimed', 'sending', 'deferred')
                      OR (state = 'unknown' AND attempts < %s)"""
        with psycopg.connect(self._postgres.url("ledger")) as connection:
            row = connection.execute(query, [MAX_ATTEMPTS]).fetchone()
        assert row is not None
        return int(row[0])

    def _notices(self) -> Iterator[NoticeRow]:
        query = "SELECT notice_id::text, recipient_id, message_id, state, tier FROM token_pipelines.notices"
        with psycopg.connect(self._postgres.url("ledger")) as connection:
            for notice_id, recipient_id, message_id, state, tier in connection.execute(query):
                yield NoticeRow(
                    notice_id=notice_id, recipient_id=recipient_id, message_id=message_id, state=state, tier=tier
                )

    def _attempts(self) -> Iterator[AttemptRow]:
        query = """SELECT notice_id::text, at, run_id, state, stage, queue_id FROM token_pipelines.attempts
                   ORDER BY attempt_id"""
        with psycopg.connect(self._postgres.url("ledger")) as connection:
            for notice_id, at, run_id, state, stage, queue_id in connection.execute(query):
                yield AttemptRow(notice_id=notice_id, at=at, run_id=run_id, state=state, stage=stage, queue_id=queue_id)

    def _write_config(self, port: int) -> None:
        config = {
            "source": {"url": self._postgres.url("registry"), "query": "crates_io"},
            "ledger": {"url": self._postgres.url("ledger")},
            "schedule": {"at": "09:00", "timezone": "UTC", "start_date": "2026-01-01"},
            "tiers": [
                {"name": "month", "before": "30d"},
                {"name": "week", "before": "7d"},
                {"name": "day", "before": "1d"},
                {"name": "expired", "after": "0d", "within": "3d"},
            ],
            "email": {
                "from": "Example Registry <noreply@example.org>",
                "service": "Example Registry",
                "templates": str(shipped.path("templates")),
                "links": {"manage": "https://example.org/settings/tokens"},
            },
            "smtp": {
                "host": "127.0.0.1",
                "port": port,
                "security": "starttls",
                "username": USER,
                "ca_file": "ca.pem",
                "connections": CONNECTIONS,
                "rate": f"{self._settings.rate}/s",
                "timeout": "1s",
                "command_timeout": "1s",
                "dot_timeout": "1s",
                "recycle_after": 40,
                "reconnect_pauses": ["0s", "0s", "1s"],
            },
            "delivery": {"mode": "live", "on_unknown": "resend", "max_attempts": MAX_ATTEMPTS, "retry_pauses": []},
        }
        (self._folder / "config.yaml").write_text(yaml.safe_dump(config))


def _signal(worker: Worker, number: int) -> None:
    if worker.process.pid is not None and worker.process.is_alive():
        os.kill(worker.process.pid, number)


@contextmanager
def _fork_server() -> Iterator[None]:
    """A process that has the product loaded and from which the workers are forked: a start takes 20 ms, not seconds."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process with threads is not to be forked
    path = {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}  # the tree that this file lies in
    with overridden(threads | path):
        _FORKS.set_forkserver_preload(["chaos.worker"])
        forkserver.ensure_running()
    try:
        yield
    finally:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # noqa: SLF001 -- else it stays until we end


def _arrival(message: Accepted) -> Arrival:
    found = _MESSAGE_ID.search(message.data)
    return Arrival(
        recipient_id=registry.recipient_of(message.recipient),
        message_id=found[1].decode() if found else "none",
        at=message.at,
        queue_id=f"Q{message.at:%H%M%S%f}",
        digest=hashlib.sha256(message.data).hexdigest(),
        tokens=frozenset(name.decode() for name in _TOKEN.findall(quopri.decodestring(message.data))),
    )
