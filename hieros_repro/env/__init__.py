"""Environments: numpy only. One environment, E of them as a vector, and the statistics that normalise what they show."""
