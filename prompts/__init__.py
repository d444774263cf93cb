"""The prompt of each model task, and the dimensions along which instructions work."""
