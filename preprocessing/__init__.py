"""An event log, item properties and a category tree in; a prepared dataset out."""
