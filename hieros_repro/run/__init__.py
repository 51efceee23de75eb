"""The loop, what is due when, checkpoints, evaluation, and the folder of a run."""
