"""Images: references, content, layers, snapshots, load, import, tag, remove."""
