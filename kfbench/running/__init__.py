"""The life of one run: resolved, prepared, executed, recorded, verified."""
