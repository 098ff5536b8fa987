"""Reports: pages of pictures with their tables, in one self-contained HTML file."""
