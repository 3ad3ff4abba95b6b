"""`token_pipelines.yaml`, typed. Unknown keys are refused; secrets come from the environment only."""

from token_pipelines.config.config import DEFAULT_PATH, ENV_PREFIX, PIPELINES, STATE_FOLDER, Config
from token_pipelines.config.environment import CONFIG_VARIABLE
from token_pipelines.config.origin import SQL_FILE, Origin
from token_pipelines.config.reading import load, load_all
from token_pipelines.config.sections import (
    LEDGER_URL,
    ON_SENT_URL,
    SOURCE_URL,
    Delivery,
    Dkim,
    Email,
    Ledger,
    Links,
    Schedule,
    Smtp,
    Source,
)
from token_pipelines.config.tier_config import TierConfig

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_PATH",
    "ENV_PREFIX",
    "LEDGER_URL",
    "ON_SENT_URL",
    "PIPELINES",
    "SOURCE_URL",
    "SQL_FILE",
    "STATE_FOLDER",
    "Config",
    "Delivery",
    "Dkim",
    "Email",
    "Ledger",
    "Links",
    "Origin",
    "Schedule",
    "Smtp",
    "Source",
    "TierConfig",
    "load",
    "load_all",
]
