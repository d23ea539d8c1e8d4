"""pytest's plugin for instrumented builds: no test has to be quick.  What it says, it must do."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile(
    "instrumented",
    deadline=None,
    max_examples=int(os.environ.get("ECI_EXAMPLES", "100")),
    derandomize=True,
)
settings.load_profile("instrumented")
