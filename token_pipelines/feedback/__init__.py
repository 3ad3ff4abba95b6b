"""What comes back from recipients and their mail systems."""
