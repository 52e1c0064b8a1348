"""Transforms, from code to results.

``manager.py`` owns their life (in the controller), ``dispatch.py`` sends objects through them (in HTTP workers),
``environments/`` makes the interpreter they need, ``worker/`` is what runs inside it.
"""
