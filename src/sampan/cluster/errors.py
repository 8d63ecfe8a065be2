"""What goes wrong with a cluster as a whole, in words for the user."""

from __future__ import annotations


class ClusterError(Exception):
    """One line that says what is wrong and what to do; the command line prints it and exits with 1."""
