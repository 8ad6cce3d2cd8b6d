"""Pure vocabulary and policy: values in, values out. No event loop, no clock, no socket."""
