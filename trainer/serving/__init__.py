"""The exported model and recommendation files."""
