"""Long trials of reliability: runs that are killed, refused, starved of disk or joined by others."""
