"""What a training step costs over the passes that it cannot avoid."""
