"""What agents learn from: stores of experience, what is chosen from them, and how it reaches the update."""
