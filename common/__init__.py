"""Code shared by all jobs: settings, storage, command lines, progress bars, report drawing."""
