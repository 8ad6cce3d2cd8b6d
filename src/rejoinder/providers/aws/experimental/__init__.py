"""The place of Nova Sonic in LiveKit Agents 1.2.17."""
