"""Load on real clusters while things happen to them, and the judgement of what the clients saw."""
