"""The store's processes: a supervisor, HTTP workers and a controller.

The path of a request: ``asgi.py`` (Granian's side) → ``app.py`` (guard, errors) → ``routes.py`` → one of ``handlers/``,
which work with what is in ``store.py``: an engine of ``storage/``, transforms through ``etl/dispatch.py``, the
controller through ``link.py`` → ``replies.py``.
"""
