"""Decides when: jobs, schedules and sensors."""
