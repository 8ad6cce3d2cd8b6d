"""The chat completions dialect, which many providers speak. Pure."""
