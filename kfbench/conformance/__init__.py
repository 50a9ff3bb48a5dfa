"""Rules that every method is held to, and the checks that run them."""
