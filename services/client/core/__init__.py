"""What a reader knows of a task, without any transport."""
