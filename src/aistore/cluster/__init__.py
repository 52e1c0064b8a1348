"""Many nodes over one object store: who they are, which one keeps which object, and how they never answer stale.

``documents`` is what they share, ``view`` what one of them makes of it, ``membership`` how they agree (controller),
``coherence`` how an object is read and written (HTTP workers). Time, store and network come in through ``world``, so
that the same code runs in production and in the deterministic simulator.
"""
