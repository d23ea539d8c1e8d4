"""What switching an engine over can fail with: each error is one line for the administrator."""

from __future__ import annotations


class EngineError(Exception):
    """Nothing was changed; the text says which file or program, what is wrong, and what to do."""
