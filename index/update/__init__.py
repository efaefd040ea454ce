"""Changes of an index folder: images added, removed and relabelled, folders merged, without building it again."""
