"""A whole cluster on one machine: an object store, `weed`, and nodes over it. For trying, for tests, for benchmarks."""
