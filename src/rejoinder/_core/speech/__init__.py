"""From the text of a model to text for a speech engine, and back from sound to text. Pure."""
