"""What a store tells of itself: counters that all its processes share, and its log."""
