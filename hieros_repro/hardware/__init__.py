"""Device, precision, compile and ranks: one thin layer over torch."""
