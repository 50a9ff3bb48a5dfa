"""How useful a teacher promises to be for a task, without training a student."""
