"""The domain: containers and what happens to them."""
