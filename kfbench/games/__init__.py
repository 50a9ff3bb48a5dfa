"""Atari: emulators, and the scores of random play and of people."""
