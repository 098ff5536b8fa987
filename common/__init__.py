"""What both jobs use and no contract states: settings, storage, progress bars, report drawing."""
