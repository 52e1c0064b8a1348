"""The ``ais`` command."""
