"""What this machine offers: cores, memory, a folder that goes."""
