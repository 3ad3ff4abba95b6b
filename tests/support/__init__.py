"""What several test modules share: servers that really run, a registry to fill, a whole pipeline to run a day with."""
