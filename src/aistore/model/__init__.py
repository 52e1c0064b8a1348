"""The nouns of the store, without I/O: names, objects, buckets, transforms."""
