"""Traffic, queues and episodes of a simulated IoT network."""
