"""A whole cluster in one thread, in virtual time, ordered by a seed: the production rules run in it unchanged."""
