"""Images inside tar files, read in place."""
