"""What a trained model is used for: lists for users, new items, vectors for an index."""
