"""The shell of every realtime session: a socket, timers, streams and futures around a pure protocol."""
