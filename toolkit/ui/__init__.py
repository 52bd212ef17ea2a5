"""Events and what shows them."""
