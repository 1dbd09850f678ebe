"""What breaks, and what must not: killed processes, full disks, locked journals, damaged files."""
