"""The restricted engine socket: what an allowed container gets in place of the engine's own."""
