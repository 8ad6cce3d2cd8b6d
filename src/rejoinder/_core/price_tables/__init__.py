"""Prices of models, a module a provider."""
