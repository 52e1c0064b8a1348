"""For the project's tests and for its users' tests: real stores in real processes."""

from .store import StoreProcess

__all__ = ["StoreProcess"]
