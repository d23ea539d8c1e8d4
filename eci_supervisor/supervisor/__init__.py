"""One process per container: keeper of its state, intake of its listeners, events."""
