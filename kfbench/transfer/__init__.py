"""What transfer methods are made of."""
