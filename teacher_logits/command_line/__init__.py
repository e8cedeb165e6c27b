"""The three programs: options in, exit code out."""
