"""A page to talk to a model and to see why a reply was late; ``rejoinder web`` serves it.

The server speaks AG-UI 1.0 (events as server-sent events), so other front ends can use it too. The
page is in ``static``; ``app.js`` is built from the modules in ``page``.
"""
