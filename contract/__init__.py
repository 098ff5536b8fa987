"""What a prepared dataset is: the one thing that preprocessing and training share."""
