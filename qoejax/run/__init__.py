"""Host loops, files, clocks and configuration."""
