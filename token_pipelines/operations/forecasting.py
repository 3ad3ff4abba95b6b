"""How many notices each tier will send on each coming day: one read, then one decision of the policy per day.

Writes nothing and sends nothing. Assumes that every day's run is on time, that every notice is sent, and that nobody
issues, renews or revokes a token meanwhile. Planning decides one day in the same way; a test compares the two. Sending
then leaves out who cannot be written to; so does the forecast.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd

from token_pipelines.addresses import valid_address
from token_pipelines.errors import LedgerError
from token_pipelines.model import Mode, to_micros
from token_pipelines.pipeline import Pipeline
from token_pipelines.policy import KEY, Policy, Window, no_history, urgency
from token_pipelines.token_facts import NEVER, TOKEN_COLUMNS, micros

ONE_DAY: Final = timedelta(days=1)

ADDRESSES_AT_A_TIME: Final = 10_000
"""How many people's addresses are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class ForecastDay:
    """One coming day: how many notices of each tier its run will send, most urgent tier first."""

    day: date
    tiers: dict[str, int]

    @property
    def notices(self) -> int:
        """All of the day's notices."""
        return sum(self.tiers.values())


def forecast(pipeline: Pipeline, *, days: int, on_warning: Callable[[str], None]) -> list[ForecastDay]:
    """The notices of today and the days after it, ``days`` in all.

    Today's are those that a run would still send now, or at its scheduled time if that has not come yet. If the ledger
    cannot be read, ``on_warning`` gets a sentence, and the forecast assumes that nobody was told anything yet.

    Raises:
        TokenPipelinesError: if the source cannot be read.
    """
    now = pipeline.clock()
    runs = list(_runs(pipeline, now, days))
    everybody = replace(pipeline.policy, rollout_percent=100, only_recipients=())
    windows = [everybody.window(now=at, reach=reach) for _, at, reach in runs]
    whole = Window(expires_after=windows[0].expires_after, expires_before=windows[-1].expires_before)
    told, told_before = _told(pipeline, whole, on_warning)
    tokens = _reachable(pipeline, whole, now)
    tokens = tokens[~tokens["recipient_id"].isin(_not_written_to(pipeline, tokens))].reset_index(drop=True)
    simulation = _Simulation(tokens, told)
    tiers = [tier.name for tier in pipeline.policy.tiers]
    forecasts = []
    for (day, at, reach), window in zip(runs, windows, strict=True):
        counts = dict.fromkeys(tiers, 0)
        if day >= pipeline.config.schedule.start_date:
            due = simulation.due(everybody, window, now=at, reach=reach, told_before=told_before)
            counts |= {str(tier): int(number) for tier, number in _most_urgent(due).value_counts().items()}
            simulation.mark_sent(due)
        forecasts.append(ForecastDay(day=day, tiers=counts))
    return forecasts


def _runs(pipeline: Pipeline, now: datetime, days: int) -> Iterator[tuple[date, datetime, datetime]]:
    """Each day with the instant at which its run decides, and its reach."""
    schedule = pipeline.config.schedule
    for offset in range(days):
        day = schedule.today(now) + offset * ONE_DAY
        at = max(schedule.run_at(day), now)
        yield day, at, schedule.reach(day, at)


def _told(
    pipeline: Pipeline, window: Window, on_warning: Callable[[str], None]
) -> tuple[pd.DataFrame, datetime | None]:
    mode = pipeline.config.delivery.mode
    try:
        return pipeline.ledger.told.history(window, mode), pipeline.ledger.told.before(mode)
    except LedgerError as error:
        on_warning(f"Forecast as if nothing had been told yet. {error}")
        return no_history(), None


def _reachable(pipeline: Pipeline, window: Window, now: datetime) -> pd.DataFrame:
    """The tokens of the window that no reason blocks now: columns TOKEN_COLUMNS, earliest expiry first."""
    frames = [pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in TOKEN_COLUMNS.items()})]
    for tokens in pipeline.source.snapshot(window):
        blocked = pipeline.policy.blocking_reason(tokens, now=now).notna()
        frames.append(tokens[~blocked])
    return pd.concat(frames, ignore_index=True).sort_values("expires_at", ignore_index=True)


def _not_written_to(pipeline: Pipeline, tokens: pd.DataFrame) -> set[str]:
    """The recipients whose address is suppressed, or cannot be written to. Reads one token of each of them again."""
    delivery = pipeline.config.delivery
    redirect_to = delivery.redirect_to if delivery.mode is Mode.REDIRECT else None
    ids = tokens.drop_duplicates("recipient_id")["token_id"].tolist()
    anybody_suppressed = _has_suppressions(pipeline)
    blocked: set[str] = set()
    for start in range(0, len(ids), ADDRESSES_AT_A_TIME):
        facts = pipeline.source.resolve(set(ids[start : start + ADDRESSES_AT_A_TIME]))
        texts = (email.strip() if isinstance(email, str) else "" for email in facts["email"])
        addresses = dict(zip(facts["recipient_id"].tolist(), texts, strict=True))
        blocked.update(recipient for recipient, address in addresses.items() if not valid_address(address))
        if anybody_suppressed:
            hashes = {
                recipient: pipeline.ledger.hash_address.known(redirect_to or address)
                for recipient, address in addresses.items()
            }
            suppressed = pipeline.ledger.suppressions.among({each for known in hashes.values() for each in known})
            blocked.update(recipient for recipient, known in hashes.items() if not suppressed.isdisjoint(known))
    return blocked


def _has_suppressions(pipeline: Pipeline) -> bool:
    """Without any, no address is hashed: a key for the hashes would be made, and a forecast writes nothing."""
    try:
        return not pipeline.ledger.suppressions.is_empty()
    except LedgerError:  # it has no tables yet, or `_told` has said why it cannot be read
        return False


def _most_urgent(due: pd.DataFrame) -> pd.Series:
    """The tier of each recipient's notice: the most urgent tier of their tokens, as in planning."""
    tiers: pd.Series = due.assign(urgency=urgency(due)).sort_values("urgency").drop_duplicates("recipient_id")["tier"]
    return tiers


class _Simulation:
    """The tokens, each with the latest threshold that will count as told by the simulated day.

    The ledger's history is merged with the tokens once, and passed to the policy in the column ``last_notified_at``.
    With a million tokens, merging it for every day would take a second per day.
    """

    def __init__(self, tokens: pd.DataFrame, history: pd.DataFrame) -> None:
        """Take the tokens, ordered by expiry, and the ledger's history of them."""
        self._expires = micros(tokens["expires_at"])
        self._elsewhere = micros(tokens["last_notified_at"])
        found = tokens[KEY].merge(history, on=KEY, how="left", validate="many_to_one") if len(history) else history
        nothing = np.full(len(tokens), NEVER, dtype=np.int64)
        # Neither a told threshold nor a refused one leads to another notice; the forecast need not tell them apart.
        self._told = np.maximum(micros(found["told"]), micros(found["refused"])) if len(found) else nothing
        self._token, ids = pd.factorize(tokens["token_id"])
        sent = history[history["sent"]].groupby("token_id")["expires_at"].max()
        self._last_sent = micros(sent.reindex(ids)).copy()
        self._tokens = tokens

    def due(
        self, policy: Policy, window: Window, *, now: datetime, reach: datetime, told_before: datetime | None
    ) -> pd.DataFrame:
        """The tokens due at this instant, as `Policy.decide` returns them; the index is the position of their row."""
        first, end = np.searchsorted(self._expires, [to_micros(window.expires_after), to_micros(window.expires_before)])
        rows = slice(first, end)
        # Once we have sent something for a token, what was told elsewhere no longer counts.
        ours = self._last_sent[self._token[rows]] >= to_micros(window.expires_after)
        told = np.maximum(self._told[rows], np.where(ours, NEVER, self._elsewhere[rows]))
        tokens = self._tokens.iloc[rows]
        tokens = tokens.assign(last_notified_at=pd.Series(told.view("M8[us]"), tokens.index).dt.tz_localize("UTC"))
        decided = policy.decide(tokens, no_history(), now=now, reach=reach, told_before=told_before)
        return decided[decided["reason"].isna()]

    def mark_sent(self, due: pd.DataFrame) -> None:
        """Assume that these were sent."""
        rows = due.index.to_numpy()
        self._told[rows] = micros(due["threshold"])
        np.maximum.at(self._last_sent, self._token[rows], self._expires[rows])
