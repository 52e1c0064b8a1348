"""A node of a cluster in production: the world that ``cluster/`` is given, and its two halves.

``controller.py`` is the half in the controller (membership, changes of the root document), ``worker.py`` the half in
each HTTP worker (objects). ``views.py`` is how maps get from one to the other, ``fence.py`` until when they may act.
"""
