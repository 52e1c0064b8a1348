"""Equivalents of AIStore's public transformer images, each a module with ``transform``.

They are programs of transforms, not parts of the store: their text is what a transform is made from
(``specs/images.py``), and its workers run them. Environment variables and arguments mean what the images say.
"""
