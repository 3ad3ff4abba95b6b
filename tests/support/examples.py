"""How many examples a property test draws, where the profile's own number would be too many or too few."""

from typing import Final

from hypothesis import settings

FULL: Final = 100
"""Examples a test under the full profiles; see the profiles in ``tests/conftest.py``."""


def examples(count: int) -> int:
    """``count`` under a full profile, and fewer in proportion under ``quick``."""
    return max(1, count * settings().max_examples // FULL)
