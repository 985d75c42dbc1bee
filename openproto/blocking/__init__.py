"""Running a blocking SDK: bounded threads, calls that can be aborted, and imports that do not hold the loop."""
