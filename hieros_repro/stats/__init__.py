"""Statistics over seeds, and the tables and figures that show them."""
