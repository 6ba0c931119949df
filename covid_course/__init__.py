"""The machinery around the lessons: exercises, executing and sweeping notebooks, the command line, predict, export."""
