"""Converts the text of a model to text for a speech engine, and played sound back to heard text.
Pure."""
