"""What runs in a transform's own interpreter: its parent process, its warm workers and the sandbox around them.

Standard library only, Python 3.8 or newer, and no import of the rest of the package: ``main.py`` and ``confine.py``
are started by path and load this directory as a package of its own, so that no name in here can be in the way of a
module that a transform imports.
"""
