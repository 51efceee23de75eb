"""Watching a run: JSON lines always, a live terminal, TensorBoard, Weights & Biases, videos. Nothing here reaches training."""
