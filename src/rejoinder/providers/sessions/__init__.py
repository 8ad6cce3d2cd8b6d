"""The shell of all realtime sessions: sockets, timers, streams and futures around a pure
protocol."""
