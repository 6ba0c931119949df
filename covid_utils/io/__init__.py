"""What lies on a disk or a server becomes a table, a tensor or weights; add a data set or a file format here."""
