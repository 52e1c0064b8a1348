"""Jobs on many objects: copy, transform, prefetch, evict. Owned by one node, done by all, surviving any of them."""
