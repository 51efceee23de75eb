"""Pure functions of tensors: no parameters, no configuration, no state."""
