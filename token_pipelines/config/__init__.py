"""`token_pipelines.yaml`, typed. Unknown keys are refused; secrets come from the environment only."""

from token_pipelines.config.config import DEFAULT_PATH, ENV_PREFIX, Config
from token_pipelines.config.reading import load
from token_pipelines.config.sections import Delivery, Dkim, Email, Ledger, Links, Schedule, Smtp, Source, TierConfig

__all__ = [
    "DEFAULT_PATH",
    "ENV_PREFIX",
    "Config",
    "Delivery",
    "Dkim",
    "Email",
    "Ledger",
    "Links",
    "Schedule",
    "Smtp",
    "Source",
    "TierConfig",
    "load",
]
