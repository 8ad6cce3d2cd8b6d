"""Realtime sessions without a socket: the vocabulary between session and service, and the rules of
replies."""
