"""The prepared dataset: its schema, files and codecs. Preprocessing writes it, the trainer reads it."""
