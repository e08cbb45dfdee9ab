"""What a run leaves behind: its folder first, and what is pushed from there."""
