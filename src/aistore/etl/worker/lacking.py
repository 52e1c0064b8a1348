"""What this host lacks, as the store says in the configuration; see ``aistore/fallbacks.py`` for the words."""

from typing import FrozenSet, Iterable

_words: FrozenSet[str] = frozenset()


def declare(words: Iterable[str]) -> None:
    """Note what is lacking, at the start of this process."""
    global _words
    _words = frozenset(words)


def lacks(word: str) -> bool:
    """Return whether the store says that this host lacks it."""
    return word in _words
