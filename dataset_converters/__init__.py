"""Converters from published data sets to RecBole's atomic files."""
