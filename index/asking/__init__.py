"""What an opened index is asked, and how what it finds becomes answers."""
