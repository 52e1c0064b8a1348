"""What tests need of the host that they run on, or that AIS_WITHOUT makes of it."""

from __future__ import annotations

import pytest

from aistore.fallbacks import lacks


def needs(word: str) -> pytest.MarkDecorator:
    """Mark a test of what cannot be had without a feature (``aistore/fallbacks.py``)."""
    return pytest.mark.skipif(lacks(word), reason=f"there is no {word} here")
