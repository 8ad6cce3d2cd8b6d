"""Realtime sessions without a socket: what is said between a session and a service, and what follows."""
