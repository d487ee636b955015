"""The wherry command line."""
