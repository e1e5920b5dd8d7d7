"""Result files: what a test run leaves on disk, and their readers."""
