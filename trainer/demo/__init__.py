"""A small local web page that compares exported models side by side: `cartwheel demo`."""
