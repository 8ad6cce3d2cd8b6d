"""Prices of models, one module per provider."""
