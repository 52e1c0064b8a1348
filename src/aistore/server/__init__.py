"""The store's processes: a supervisor, HTTP workers and a controller.

The path of a request: ``asgi.py`` (Granian's side) → ``app.py`` (what is wired to what, guards, errors) →
``routes.py`` → one of ``handlers/`` → an engine of ``storage/``, a transform through ``etl/dispatch.py``, or the
controller through ``link.py`` → ``replies.py``.
"""
