"""The place of Google's realtime models in LiveKit Agents 1.2.17; see
`rejoinder.providers.google.realtime`."""
