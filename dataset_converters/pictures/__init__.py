"""Local pictures of items: folders, archives, and what img2dataset writes."""
