"""What everything rests on: settings, files, device, memory, progress; imports nothing of ours."""
