"""Which pictures of a training set to leave out, and why."""
