"""The local engine: an ordered index in SQLite, immutable files under opaque names beside it."""
