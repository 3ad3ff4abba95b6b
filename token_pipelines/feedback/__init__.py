"""What comes back from recipients and from their mail systems."""
