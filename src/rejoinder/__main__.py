"""``python -m rejoinder``."""

from rejoinder.cli.app import main

if __name__ == "__main__":
    main()
