"""What the engine keeps on disk: where things lie, the database, atomic files, locks."""
