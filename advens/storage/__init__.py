"""What a run leaves behind: files and the store of members and outcomes."""
