"""What a recipe is worth against other ways to spend the same time."""
