"""Points: read from files, written to files, split into training, validation and test."""
