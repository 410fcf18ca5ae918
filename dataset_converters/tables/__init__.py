"""From raw files to the tables of a conversion, and from these to atomic files."""
