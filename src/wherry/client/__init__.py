"""The API's client: blocking, standard library only."""
