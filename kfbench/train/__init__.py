"""The two training loops, of one surface (`train/loop.py`), and what they are made of."""
