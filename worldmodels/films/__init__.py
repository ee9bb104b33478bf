"""What people look at: films, and pictures of what a model imagines."""
