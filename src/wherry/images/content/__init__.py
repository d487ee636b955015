"""The content store: blobs by digest in an OCI image layout that other tools can read."""
