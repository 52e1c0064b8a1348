"""Transforms that are servers of their own: started, reached and talked to.

``connect`` gives out sockets of a transform's network. An object on its way through one, in an HTTP worker of the
store: ``talk`` (tries, what becomes of a broken connection), ``call`` (what everybody needs who has to do with one
object), ``watch`` (what ends it early), ``pool`` (connections that are kept), ``requests`` (what is asked for),
``http`` or ``websocket`` (one object on one connection), ``early`` (one that another thread than the event loop's
sends), ``replies`` (what comes back, in memory or in a file), ``call_files`` (the object, and what was put for it, as
files while the call is under way), ``gateway`` (the transform's own calls back to the store), ``callers`` (who may make
those).
"""
