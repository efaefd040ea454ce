"""What an answer is made of: votes, confidence, the match with the image that decided."""
