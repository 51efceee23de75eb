"""Building blocks with parameters, built without drawing and filled from named keys; and what optimises them."""
