"""Programs that turn published data sets into RecBole's atomic files."""
