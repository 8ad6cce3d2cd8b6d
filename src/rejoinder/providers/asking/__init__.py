"""From a conversation to the bytes of one request, shared by the providers."""
