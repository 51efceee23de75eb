"""Everything that makes a run a function of (code, config, seed, numerics)."""
