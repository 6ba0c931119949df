"""What a run is, leaves and executes; others rely on its parameter names and file formats, so keep those."""
