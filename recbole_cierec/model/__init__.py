"""Models, one file each, and what they share (base/)."""
