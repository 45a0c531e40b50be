"""The web UI, looked at by a browser."""
