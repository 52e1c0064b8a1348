"""`ais doctor`: what this machine has and lacks for a store, and what to do about it.

It asks the code that decides when a store runs; it decides nothing by itself. In a client-only install the checks of
the server are skipped.
"""
