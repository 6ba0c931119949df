"""The notebooks' exercises: checks by behaviour, each with hints, and how far a learner has come."""
