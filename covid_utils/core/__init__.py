"""What everything rests on: settings, files, device, memory, progress, checks; imports nothing of ours."""
