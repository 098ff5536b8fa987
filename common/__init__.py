"""What both jobs share beyond the dataset: settings, storage, command lines, progress bars, report drawing."""
