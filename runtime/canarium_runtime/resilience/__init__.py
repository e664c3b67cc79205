"""What keeps a failing neighbour from becoming a failing server."""
