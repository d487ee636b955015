"""Unpacked layers and the drivers that make root file systems of them."""
