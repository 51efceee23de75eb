"""What can be chosen: Hydra groups. A package, so that an installed wheel carries it."""
