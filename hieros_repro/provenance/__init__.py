"""Where a run came from: code, packages, machine. What run.json records."""
