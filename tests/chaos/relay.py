"""A relay in a bad mood: at each stage it refuses, defers, drops or stalls at random, from a seed.

What is a recipient's own refusal is kept apart: some mailboxes are full for good, and a mailbox that has had its
message may refuse a second copy. Everything else passes, so that everybody else must have been told in the end.
"""

import random
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from chaos.registry import recipient_of
from support.smtpd import Action

STALL = 1.4  # seconds; longer than the smtp timeouts of the run
HICCUP = 0.015  # seconds at most between accepting and answering, for a kill to fall into
STORM = timedelta(seconds=0.8)
STORM_CHANCE = 0.0015  # at each MAIL
SECOND_COPY_REFUSED = 0.2
GREYLISTED_TRIES = 3  # as many as delivery.max_attempts: a deferral must not use up a try in doubt

DEFER = Action(code=451, text="4.3.0 come back later")
CLOSING = Action(code=421, text="4.3.2 closing down")
DROP = Action(drop="before")
GREY = Action(code=450, text="4.7.1 greylisted")
FULL = Action(code=552, text="5.2.2 mailbox full")

# Chances of: a deferral, a 421, a drop, a stall. A connection has the first four stages, a message the others.
CHANCES = {
    "connect": (0.0, 0.03, 0.02, 0.01),
    "ehlo": (0.015, 0.01, 0.01, 0.005),
    "starttls": (0.015, 0.005, 0.01, 0.005),
    "auth": (0.015, 0.01, 0.01, 0.005),
    "mail": (0.008, 0.005, 0.005, 0.0015),
    "rcpt": (0.015, 0.004, 0.004, 0.0015),
    "data": (0.008, 0.004, 0.004, 0.0015),
    "dot": (0.010, 0.004, 0.006, 0.002),
}
DROP_AFTER_ACCEPTING = 0.006
STALL_AFTER_ACCEPTING = 0.003
DROP_ONCE_ANSWERED = 0.004


class Mood:
    """The script of an ``Smtpd``. Runs on the server's thread; ``accepted`` and ``tally`` may be read from any."""

    def __init__(self, rng: random.Random, *, full: Collection[str], grey: Collection[str]) -> None:
        """The mailboxes of ``full`` refuse every message for good, those of ``grey`` put off the first few."""
        self.calm = False  # only the recipients' own refusals are left
        self.accepted = 0
        self.tally: Counter[str] = Counter()
        self.full = frozenset(full)
        self.refused: set[str] = set()
        self._grey = dict.fromkeys(grey, GREYLISTED_TRIES)
        self._rng = rng
        self._storm_until = datetime.now(UTC)
        self._has_message: set[str] = set()
        self._lost_once: set[str] = set()

    def __call__(self, stage: str, argument: str) -> Action | None:
        """What to do at this stage."""
        recipient = recipient_of(argument) if stage in {"rcpt", "dot"} else ""
        action = self._own_refusal(stage, recipient) or self._trouble(stage, recipient)
        if stage == "dot" and (action is None or (action.code is None and action.drop != "before")):
            self.accepted += 1
            self._has_message.add(recipient)
            action = action or Action(stall=self._rng.uniform(0, HICCUP))
        return action

    def _own_refusal(self, stage: str, recipient: str) -> Action | None:
        """A mailbox that is full, half of them at RCPT, half after the message; or that knows no sender at first."""
        if not recipient:
            return None
        if recipient in self.full and stage == ("rcpt" if int(recipient) % 2 else "dot"):
            self.refused.add(recipient)
            return self._noted(stage, "full for good", FULL)
        if stage == "rcpt" and self._grey.get(recipient):
            self._grey[recipient] -= 1
            return self._noted(stage, "greylisted", GREY)
        again = stage == "rcpt" and recipient in self._has_message
        if again and self._rng.random() < SECOND_COPY_REFUSED:
            return self._noted(stage, "second copy refused", FULL)
        return None

    def _trouble(self, stage: str, recipient: str) -> Action | None:
        if self.calm or stage not in CHANCES:
            return None
        now = datetime.now(UTC)
        if now < self._storm_until and stage != "dot":
            return self._noted(stage, "421 in a storm", CLOSING)
        if stage == "mail" and self._rng.random() < STORM_CHANCE:
            self._storm_until = now + STORM
        actions = [("451", DEFER), ("421", CLOSING), ("dropped", DROP), ("stalled", self._stalled(stage))]
        if stage == "dot":
            actions += [
                ("accepted, then dropped", Action(drop="after")),
                ("accepted, then stalled", Action(stall=STALL)),
                ("accepted, answered, then dropped", Action(drop="answered")),
            ]
        chances = [*CHANCES[stage], DROP_AFTER_ACCEPTING, STALL_AFTER_ACCEPTING, DROP_ONCE_ANSWERED]
        point = self._rng.random()
        for (name, action), chance in zip(actions, chances, strict=False):
            point -= chance
            if point < 0:
                if stage == "dot" and name in {"dropped", "stalled"} and not self._may_lose(recipient):
                    return None
                return self._noted(stage, name, action)
        return None

    def _stalled(self, stage: str) -> Action:
        """Slower than the client's patience. A message that stalled is not accepted: another action does that."""
        return Action(code=451, text="4.3.0 too slow", stall=STALL) if stage == "dot" else Action(stall=STALL)

    def _may_lose(self, recipient: str) -> bool:
        """Whether to leave the client in doubt without having the message: once for each, as there is a limit."""
        first = recipient not in self._lost_once
        self._lost_once.add(recipient)
        return first

    def _noted(self, stage: str, name: str, action: Action) -> Action:
        self.tally[f"{stage}: {name}"] += 1
        return action
