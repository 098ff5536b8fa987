"""The exported model, its card, and the files of recommendations."""
