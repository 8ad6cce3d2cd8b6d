"""The only folder that moves bytes."""
