"""Container networks: bridge, addresses, names, firewall, published ports."""
