"""``python -m rejoinder.cli``."""

from __future__ import annotations

from rejoinder.cli.app import main

if __name__ == "__main__":
    main()
