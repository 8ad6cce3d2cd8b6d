"""The command line: ``rejoinder chat``, ``rejoinder models``, ``rejoinder doctor``."""
