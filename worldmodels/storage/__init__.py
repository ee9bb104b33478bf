"""What lies on disk: files that survive a crash, checkpoints, run folders."""
