"""Where LiveKit Agents 1.2.17 has Nova Sonic."""
