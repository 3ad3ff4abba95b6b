"""What an operator does around a day: forecasts, previews, checks of the source. The modules do not import each other."""
