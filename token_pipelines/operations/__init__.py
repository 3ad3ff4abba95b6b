"""What an operator does around a day: forecasts, previews, checks of the source. They do not import each other."""
