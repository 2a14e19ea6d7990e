"""What shuts a program in: namespaces, Landlock, a system call filter, limits and control groups, in plain Python."""
