"""World models: observations as features and back, and what comes next in between."""
