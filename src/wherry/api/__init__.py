"""The Docker Engine API over HTTP. No policy: decode, one engine call, encode."""
