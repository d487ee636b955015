"""What the flags of `run` and `create` mean: texts of the user turned into the API's values."""
