"""The stages, one file each, and the command line."""
