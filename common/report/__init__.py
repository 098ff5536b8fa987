"""The report: pages of pictures, each with its table, in one HTML file that needs nothing else."""
