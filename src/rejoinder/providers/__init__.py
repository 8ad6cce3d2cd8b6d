"""One folder per provider, the same file names in each: ``format.py`` and ``wire.py`` are pure,
``llm.py`` is the shell. A provider never imports a provider."""
