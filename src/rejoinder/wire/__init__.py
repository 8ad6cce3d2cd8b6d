"""Framings that carry model streams: pure decoders, usable without the rest of the package."""
