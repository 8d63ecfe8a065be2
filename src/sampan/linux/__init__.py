"""Linux as Python 3.11 does not offer it: system calls by ctypes, inotify."""
