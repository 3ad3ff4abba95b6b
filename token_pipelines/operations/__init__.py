"""What an operator does around a day: forecasts, previews, checks of the source. None imports another."""
