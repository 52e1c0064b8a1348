"""A bounded cache of a store's objects on this machine's disk."""
