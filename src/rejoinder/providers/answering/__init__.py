"""From the bytes of one response to chunks and errors, shared by the providers."""
