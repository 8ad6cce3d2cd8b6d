"""Where LiveKit Agents 1.2.17 has its realtime models of Google; see `rejoinder.providers.google.realtime`."""
