"""The HTTP contract that both sides import: spelling of paths, headers, actions and messages."""
