"""Download the pictures of a list of URLs."""
