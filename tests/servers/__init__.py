"""Servers for tests: each runs in a thread of the test's process, on loopback and a port of its own."""
